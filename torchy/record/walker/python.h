// Of Python's C interface what the walker needs, declared by hand: the headers need not be
// installed. All of it is exported by every Python that Torchy supports.
#pragma once

#include <c10/util/python_stub.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

extern "C" {
struct PyThreadStateOpaque;
struct PyMethodDef {
  const char* name;
  PyObject* (*function)(PyObject* self, PyObject* args, PyObject* kwargs);
  int flags;
  const char* doc;
};
extern PyObject* PyExc_RuntimeError;
extern PyObject _Py_NoneStruct;
int PyBytes_AsStringAndSize(PyObject* bytes, char** data, std::ptrdiff_t* size);
PyObject* PyBytes_FromStringAndSize(const char* data, std::ptrdiff_t size);
PyObject* PyCapsule_New(void* pointer, const char* name, void (*destructor)(PyObject*));
void* PyCapsule_GetPointer(PyObject* capsule, const char* name);
PyObject* PyCFunction_NewEx(PyMethodDef* definition, PyObject* self, PyObject* module);
int PyCode_Addr2Line(PyObject* code, int instruction);
PyObject* PyDescr_NewMethod(PyObject* owner, PyMethodDef* definition);
void PyErr_Clear();
PyObject* PyErr_Occurred();
void PyErr_SetString(PyObject* type, const char* message);
PyObject* PyEval_GetFrame();
void PyEval_RestoreThread(PyThreadStateOpaque* state);
PyThreadStateOpaque* PyEval_SaveThread();
PyObject* PyFrame_GetBack(PyObject* frame);
PyObject* PyFrame_GetCode(PyObject* frame);
int PyFrame_GetLasti(PyObject* frame);
int PyGILState_Ensure();
void PyGILState_Release(int state);
int PyList_Append(PyObject* list, PyObject* item);
PyObject* PyList_New(std::ptrdiff_t size);
long long PyLong_AsLongLong(PyObject* number);
PyObject* PyLong_FromLongLong(long long number);
PyObject* PyObject_Call(PyObject* function, PyObject* args, PyObject* kwargs);
PyObject* PyObject_GetAttrString(PyObject* object, const char* name);
PyObject* PySequence_Concat(PyObject* left, PyObject* right);
PyObject* PySequence_GetItem(PyObject* sequence, std::ptrdiff_t index);
std::ptrdiff_t PySequence_Size(PyObject* sequence);
PyObject* PyTuple_Pack(std::ptrdiff_t size, ...);
const char* PyUnicode_AsUTF8AndSize(PyObject* text, std::ptrdiff_t* size);
PyObject* PyUnicode_AsEncodedString(PyObject* text, const char* encoding, const char* errors);
PyObject* PyUnicode_DecodeUTF8(const char* text, std::ptrdiff_t size, const char* errors);
int Py_IsInitialized();
void Py_DecRef(PyObject* object);
void Py_IncRef(PyObject* object);
}

namespace torchy {

// A reference to a Python object; needs the GIL.
class Object {
 public:
  Object() = default;
  static Object owned(PyObject* object) { return Object(object); }
  static Object borrowed(PyObject* object) {
    if (object) Py_IncRef(object);
    return Object(object);
  }
  Object(Object&& other) noexcept : object_(other.release()) {}
  Object& operator=(Object&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() {
    if (object_) Py_DecRef(object_);
  }

  PyObject* get() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  PyObject* release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }

 private:
  explicit Object(PyObject* object) : object_(object) {}
  PyObject* object_ = nullptr;
};

// Takes the GIL, on a thread that may have it already.
class Gil {
 public:
  Gil() : state_(PyGILState_Ensure()) {}
  ~Gil() { PyGILState_Release(state_); }
  Gil(const Gil&) = delete;
  Gil& operator=(const Gil&) = delete;

 private:
  int state_;
};

// Gives up the GIL, on a thread that has it.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadStateOpaque* state_;
};

// Strings of Python may hold halves of surrogate pairs: names of files that are not UTF-8 do.
constexpr const char* kErrors = "surrogatepass";

// Raises where Python has set an exception.
inline std::string text_of(PyObject* text) {
  std::ptrdiff_t size = 0;
  if (const char* data = PyUnicode_AsUTF8AndSize(text, &size))
    return {data, static_cast<size_t>(size)};
  PyErr_Clear();
  const Object bytes = Object::owned(PyUnicode_AsEncodedString(text, "utf-8", kErrors));
  char* data = nullptr;
  if (!bytes || PyBytes_AsStringAndSize(bytes.get(), &data, &size) != 0)
    throw std::invalid_argument("not a text");
  return {data, static_cast<size_t>(size)};
}

}  // namespace torchy
