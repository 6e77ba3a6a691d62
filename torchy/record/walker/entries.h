// Functions that Python calls as its own, with objects: what their tables are made of.
#pragma once

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "python.h"
#include "session.h"

namespace torchy {

// A session as Python holds it: what it did can be read as long as somebody does.
inline constexpr const char* kSession = "torchy.session";

struct Arguments {
  PyObject* const* items;

  int64_t number(size_t i) const { return PyLong_AsLongLong(items[i]); }
  std::string text(size_t i) const { return text_of(items[i]); }
  template <typename T>
  T* address(size_t i) const {
    return reinterpret_cast<T*>(number(i));
  }
  const std::shared_ptr<Session>& session(size_t i) const {
    auto* session =
        static_cast<std::shared_ptr<Session>*>(PyCapsule_GetPointer(items[i], kSession));
    if (!session) throw std::invalid_argument("not a session");
    return *session;
  }
};

inline PyObject* number(int64_t value) { return PyLong_FromLongLong(value); }

inline PyObject* nothing() {
  Py_IncRef(&_Py_NoneStruct);
  return &_Py_NoneStruct;
}

// A tuple of new references.
template <size_t n>
PyObject* tuple_of(const std::array<PyObject*, n>& items) {
  std::array<Object, n> owned;
  for (size_t i = 0; i < n; ++i) owned[i] = Object::owned(items[i]);
  for (PyObject* item : items)
    if (!item) return nullptr;  // there is no memory
  return std::apply(
      [](auto... item) { return PyTuple_Pack(static_cast<std::ptrdiff_t>(n), item...); }, items);
}
template <typename... Items>
PyObject* tuple(Items... items) {
  return tuple_of(std::array<PyObject*, sizeof...(Items)>{items...});
}

inline PyObject* text(const std::string& value) {
  return PyUnicode_DecodeUTF8(value.data(), static_cast<std::ptrdiff_t>(value.size()), kErrors);
}

template <typename Item>
PyObject* bytes_of(c10::ArrayRef<Item> items) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(items.data()),
                                   static_cast<std::ptrdiff_t>(items.size() * sizeof(Item)));
}
template <typename Item>
PyObject* bytes_of(const std::vector<Item>& items) {
  return bytes_of(c10::ArrayRef<Item>(items));
}

using Call = PyObject* (*)(const Arguments&);

template <Call call, std::ptrdiff_t arguments>
PyObject* enter_call(PyObject*, PyObject* const* items, std::ptrdiff_t count) {
  try {
    if (count != arguments)
      throw std::invalid_argument("takes " + std::to_string(arguments) + " arguments, not " +
                                  std::to_string(count));
    Object result = Object::owned(call(Arguments{items}));
    return PyErr_Occurred() ? nullptr : result.release();
  } catch (const std::exception& error) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

template <Call call, std::ptrdiff_t arguments>
PyMethodDef definition_of(const char* called) {
  using Function = PyObject* (*)(PyObject*, PyObject*, PyObject*);
  constexpr int kFast = 0x80;  // METH_FASTCALL
  // the flags tell how it is called
  return {called, reinterpret_cast<Function>(reinterpret_cast<void*>(&enter_call<call, arguments>)),
          kFast, nullptr};
}

#define TORCHY_CALL(called, function, arguments) definition_of<&function, arguments>(called)

}  // namespace torchy
