#include "hooks.h"

#include <array>
#include <string>
#include <utility>

namespace torchy {

namespace {

// Kept for ever, as what it stands for is.
struct Hook {
  std::string name, doc;
  PyMethodDef definition = {};
  PyObject *before = nullptr, *original = nullptr;
  bool is_method = false;

  PyObject* call(PyObject* self, PyObject* args, PyObject* kwargs) const {
    if (!is_method) return call_both(args, kwargs);
    const Object bound = Object::owned(PyTuple_Pack(1, self));
    if (!bound) return nullptr;
    const Object all = Object::owned(PySequence_Concat(bound.get(), args));
    return all ? call_both(all.get(), kwargs) : nullptr;
  }

  PyObject* call_both(PyObject* args, PyObject* kwargs) const {
    if (open_sessions.load(std::memory_order_relaxed) > 0) {
      const Object done = Object::owned(PyObject_Call(before, args, nullptr));
      if (!done) return nullptr;
    }
    return PyObject_Call(original, args, kwargs);
  }
};

// A C function learns nothing of the object that it was called as: each hook has one of its own.
inline std::array<Hook, 64> hooks;
inline size_t hook_count = 0;

template <size_t n>
PyObject* enter_hook(PyObject* self, PyObject* args, PyObject* kwargs) {
  return hooks[n].call(self, args, kwargs);
}

template <size_t... n>
constexpr auto hook_entries(std::index_sequence<n...> /*numbers*/) {
  return std::array{&enter_hook<n>...};
}

}  // namespace

PyObject* make_hook(const char* name, const char* doc, PyObject* before, PyObject* original,
                    bool is_method, PyObject* owner, PyObject* module) {
  static constexpr auto kEntries = hook_entries(std::make_index_sequence<hooks.size()>());
  constexpr int kVarargs = 1, kKeywords = 2;
  if (hook_count == hooks.size()) {
    PyErr_SetString(PyExc_RuntimeError, "too many functions of torch are replaced");
    return nullptr;
  }
  Hook& hook = hooks[hook_count];
  hook.name = name;
  hook.doc = doc;
  hook.before = before;
  hook.original = original;
  hook.is_method = is_method;
  hook.definition = {hook.name.c_str(), kEntries[hook_count], kVarargs | kKeywords,
                     hook.doc.c_str()};
  PyObject* made = is_method ? PyDescr_NewMethod(owner, &hook.definition)
                             : PyCFunction_NewEx(&hook.definition, owner, module);
  if (!made) return nullptr;
  Py_IncRef(before);
  Py_IncRef(original);
  ++hook_count;
  return made;
}

}  // namespace torchy
