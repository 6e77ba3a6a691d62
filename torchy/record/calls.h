// What Python calls all the time: functions as Python itself has them, which cost a tenth of what
// ctypes does. They are called with the GIL, by Torchy alone, with the arguments that they expect.
#pragma once

#include <link.h>

#include <array>
#include <string>

#include "claim.h"

namespace torchy {

inline std::shared_ptr<Session> session_of(int64_t id) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  return registry().find(id);
}

inline void attach(std::shared_ptr<Session> session) {
  this_session = std::move(session);
  set_thread_bit(this_session != nullptr);
}

// Nested; -1 ends all: an interrupt may have come between a pause and its end.
inline void pause(int64_t on) {
  static thread_local std::vector<std::unique_ptr<Paused>> pauses;
  if (on > 0) {
    pauses.push_back(std::make_unique<Paused>());
  } else if (!pauses.empty()) {
    pauses.pop_back();
  }
  while (on < 0 && !pauses.empty()) pauses.pop_back();
}

struct Arguments {
  PyObject* const* items;

  int64_t number(size_t i) const { return PyLong_AsLongLong(items[i]); }
  const char* text(size_t i) const { return text_of(items[i]).data(); }
  template <typename T>
  T* address(size_t i) const {
    return reinterpret_cast<T*>(number(i));
  }
  const std::shared_ptr<Session>& session(size_t i) const;
};

// A session as Python holds it: what it did can be read as long as somebody does.
constexpr const char* kSession = "torchy.session";

inline const std::shared_ptr<Session>& Arguments::session(size_t i) const {
  auto* session = static_cast<std::shared_ptr<Session>*>(PyCapsule_GetPointer(items[i], kSession));
  if (!session) throw std::invalid_argument("not a session");
  return *session;
}

inline PyObject* number(int64_t value) { return PyLong_FromLongLong(value); }

inline PyObject* nothing() {
  Py_IncRef(&_Py_NoneStruct);
  return &_Py_NoneStruct;
}

// A tuple of new references.
template <typename... Items>
PyObject* tuple(Items... items) {
  const std::array<Object, sizeof...(Items)> owned{Object::owned(items)...};
  return PyTuple_Pack(static_cast<std::ptrdiff_t>(sizeof...(Items)), items...);
}

inline PyObject* text(const std::string& value) {
  return PyUnicode_FromStringAndSize(value.data(), static_cast<std::ptrdiff_t>(value.size()));
}

inline PyObject* bytes_of(c10::IntArrayRef words) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(words.data()),
                                   static_cast<std::ptrdiff_t>(words.size() * sizeof(int64_t)));
}

inline bool owes(const Session& session) { return session.running || !session.trace->path.empty(); }

// Call with the mutex held.
inline void forget_session(const std::shared_ptr<Session>& session) {
  open_sessions -= static_cast<int64_t>(std::erase(registry().sessions, session));
}

// open(id, mode, max ops, slack, whether there is a pool): a session that is new.
inline PyObject* open_session(const Arguments& given) {
  auto session = std::make_shared<Session>();
  session->id = given.number(0);
  session->mode = static_cast<SessionMode>(given.number(1));
  session->max_ops = static_cast<size_t>(given.number(2));
  session->slack_bytes = static_cast<size_t>(given.number(3));
  if (given.number(4)) Pool::get().install();
  auto held = std::make_unique<std::shared_ptr<Session>>(session);
  PyObject* capsule = PyCapsule_New(held.get(), kSession, [](PyObject* dropped) {
    std::unique_ptr<std::shared_ptr<Session>> last(
        static_cast<std::shared_ptr<Session>*>(PyCapsule_GetPointer(dropped, kSession)));
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (!owes(**last)) forget_session(*last);  // an interrupt came before Python had it
  });
  if (!capsule) return nullptr;
  held.release();
  const uint64_t now = Pool::get().now();
  std::lock_guard<std::mutex> lock(registry().mutex);
  if (registry().sessions.empty()) registry().opened = now;
  registry().sessions.push_back(std::move(session));
  ++open_sessions;
  return capsule;
}

// set(session, variant, whether first flushes are interpreted, whether dead ops are left out)
inline PyObject* set_session(const Arguments& given) {
  Session& session = *given.session(0);
  std::lock_guard<std::mutex> lock(registry().mutex);
  session.variant = given.number(1);
  session.interprets = given.number(2) != 0;
  session.skip_dead = given.number(3) != 0;
  return nothing();
}

// record_into(session): what this thread's ops are recorded into from now on.
inline PyObject* record_into(const Arguments& given) {
  attach(given.session(0));
  return nothing();
}

// record_no_more(): as if this thread had no session.
inline PyObject* record_no_more(const Arguments&) {
  attach(nullptr);
  return nothing();
}

// close(session): 1 if the walker has let go of it; 0 if it has values to compute still.
inline PyObject* close_session(const Arguments& given) {
  const auto& session = given.session(0);
  std::optional<uint64_t> opened;
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (owes(*session)) return number(0);
    forget_session(session);
    if (registry().sessions.empty()) opened = registry().opened;
  }
  if (opened) Pool::get().trim(*opened);  // what the last one did not use
  return number(1);
}

// flush(session, reason): a Repeated; kNo if Python is to do it.
inline PyObject* flush_session(const Arguments& given) {
  const std::shared_ptr<Session> session = given.session(0);
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (!owes(*session)) return number(static_cast<int64_t>(Repeated::kYes));
  }
  const char* reason = given.text(1);  // Python holds it
  auto repeated = Repeated::kNo;
  {
    WithoutGil without;
    repeated = flush_for_python(*session, reason);
  }
  return number(static_cast<int64_t>(repeated));
}

// flush_here(reason): the same for this thread's session; kNo also if it has none.
inline PyObject* flush_here(const Arguments& given) {
  auto repeated = Repeated::kNo;
  if (this_session) {
    const char* reason = given.text(0);
    std::unique_lock<std::mutex> lock(registry().mutex);
    const bool idle = !owes(*this_session);
    lock.unlock();
    if (idle) return number(static_cast<int64_t>(Repeated::kYes));
    const std::shared_ptr<Session> session = this_session;
    const WithoutGil without;
    repeated = flush_for_python(*session, reason);
  }
  return number(static_cast<int64_t>(repeated));
}

// What is pending on a tensor that something outside the walker looks at, or, if its memory leaves
// torch, what still reads that.
inline Repeated settle_for_python(c10::TensorImpl& tensor, bool escapes, const char* reason) {
  auto done = Repeated::kYes;
  if (!tensor.has_storage()) return done;
  auto* storage = tensor.unsafe_storage().unsafeGetStorageImpl();
  std::vector<std::shared_ptr<Session>> sessions;
  bool pending = false;
  if (storage->has_materializer()) {
    std::lock_guard<std::mutex> lock(registry().mutex);
    sessions = holders(storage, &pending);
  }
  if (pending || escapes) {
    for (const auto& session : sessions) {
      const auto repeated = flush_for_python(*session, reason);
      if (repeated == Repeated::kNo) return repeated;
      if (repeated != Repeated::kYes && session == this_session) done = repeated;
    }
  }
  if (carries_bit(tensor)) take_bit(tensor);
  if (escapes) note_escape(storage);
  return done;
}

// settle(tensor's address, whether its memory leaves torch, reason): a Repeated; kNo if Python is
// to flush.
inline PyObject* settle(const Arguments& given) {
  auto* tensor = given.address<c10::TensorImpl>(0);
  const bool escapes = given.number(1) != 0;
  const char* reason = given.text(2);
  auto settled = Repeated::kNo;
  {
    WithoutGil without;
    settled = settle_for_python(*tensor, escapes, reason);
  }
  return number(static_cast<int64_t>(settled));
}

// release(): gives back to the system the memory that is kept for tensors to come; how many bytes.
inline PyObject* release_memory(const Arguments&) {
  return number(static_cast<int64_t>(Pool::get().release()));
}

// prepare(): before a region begins; how many shared libraries the process has loaded so far.
inline PyObject* prepare(const Arguments&) {
  pause(-1);
  if (!loaded().load(std::memory_order_acquire) || claims().due()) {
    WithoutGil without;
    claim_ops();
  }
  int64_t libraries = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* into) {
        *static_cast<int64_t*>(into) = static_cast<int64_t>(info->dlpi_adds);
        return 1;
      },
      &libraries);
  return number(libraries);
}

// places(): how many are known. Lines count as well: eight take as much memory.
inline PyObject* places(const Arguments&) {
  constexpr size_t kLines = 8;
  std::lock_guard<std::mutex> lock(registry().mutex);
  return number(static_cast<int64_t>(std::max(registry().steps.size(), lines().size() / kLines)));
}

// set_most_places(count): from which on they are forgotten.
inline PyObject* set_most_places(const Arguments& given) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  registry().most_places = static_cast<size_t>(given.number(0));
  return nothing();
}

// set_folders(own, of libraries): whose code is not the program's.
inline PyObject* set_folders(const Arguments& given) {
  std::array<std::vector<std::string>, 2> folders;
  for (size_t i = 0; i < folders.size(); ++i)
    for (std::ptrdiff_t j = 0; j < PySequence_Size(given.items[i]); ++j)
      folders[i].emplace_back(text_of(Object::owned(PySequence_GetItem(given.items[i], j)).get()));
  lines().set_folders(std::move(folders[0]), std::move(folders[1]));
  return nothing();
}

// set_recordable(names): ops that are recorded, without overload; before the first region.
inline PyObject* set_recordable(const Arguments& given) {
  for (std::ptrdiff_t i = 0; i < PySequence_Size(given.items[0]); ++i)
    recordable_ops().emplace(text_of(Object::owned(PySequence_GetItem(given.items[0], i)).get()));
  return nothing();
}

// line_here(): that of the program, as a number; -1 if there is none.
inline PyObject* python_line_here(const Arguments&) { return number(lines().here()); }

// origin(line): the number of the root for what is recorded after a flush there.
inline PyObject* root_number(const Arguments& given) {
  return number(lines().origin(given.number(0)));
}

// tell_line(line): its file and number.
inline PyObject* tell_line(const Arguments& given) {
  const auto [file, line] = lines().tell(given.number(0));
  return tuple(text(file), number(line));
}

// counters(session)
inline PyObject* counters_of(const Arguments& given) {
  const Session& session = *given.session(0);
  return tuple(number(session.recorded), number(session.run_now), number(session.places),
               number(session.layouts), number(session.policy_calls), number(session.flushes),
               number(session.views), number(session.repeated), number(session.interpreted));
}

inline PyObject* bytes_of(const std::vector<uint8_t>& bytes) {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                   static_cast<std::ptrdiff_t>(bytes.size()));
}

// For a flush by a script its id; else what it takes to plan it.
inline PyObject* origin_of(const Flushed& flushed) {
  if (flushed.script) return number(flushed.script->id);
  const Unplanned& unplanned = *flushed.unplanned;
  return tuple(bytes_of(unplanned.path), bytes_of(unplanned.flags), number(unplanned.reason),
               text(unplanned.text), number(unplanned.line), number(unplanned.variant));
}

// take_log(session): the flushes that Python has not seen, the newest as raw records, of the others
// sums by script.
inline PyObject* take_log(const Arguments& given) {
  const auto [records, sums] = [&] {
    std::lock_guard<std::mutex> lock(registry().mutex);
    return given.session(0)->log.take(registry().epoch);
  }();
  const Object told = Object::owned(PyList_New(0)), summed = Object::owned(PyList_New(0));
  if (!told || !summed) return nullptr;
  Object words;  // of the last record: the next one has the same, mostly
  const std::vector<int64_t>* last = nullptr;
  for (const Flushed& flushed : records) {
    if (flushed.words.get() != last) words = Object::owned(bytes_of(*flushed.words));
    last = flushed.words.get();
    const c10::IntArrayRef both(flushed.numbers_and_times);
    const Object record = Object::owned(
        tuple(origin_of(flushed), number(flushed.nanoseconds), number(flushed.saved),
              number(static_cast<int64_t>(flushed.held)), Object::borrowed(words.get()).release(),
              bytes_of(both.slice(0, flushed.numbers)), bytes_of(both.slice(flushed.numbers))));
    if (!record || PyList_Append(told.get(), record.get()) != 0) return nullptr;
  }
  for (const auto& [script, sum] : sums) {
    const Object item = Object::owned(tuple(number(script), number(sum.count), number(sum.ops),
                                            number(sum.nanoseconds), number(sum.saved)));
    if (!item || PyList_Append(summed.get(), item.get()) != 0) return nullptr;
  }
  return PyTuple_Pack(2, told.get(), summed.get());
}

using Call = PyObject* (*)(const Arguments&);

template <Call call>
PyObject* enter_call(PyObject*, PyObject* const* items, std::ptrdiff_t) {
  try {
    PyObject* result = call(Arguments{items});
    return PyErr_Occurred() ? nullptr : result;
  } catch (const std::exception& error) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

// Null, with an exception set, if there is none of that name.
inline PyObject* python_call(const std::string& name) {
  using Function = PyObject* (*)(PyObject*, PyObject*, PyObject*);
  constexpr int kFast = 0x80;  // METH_FASTCALL
  auto define = []<Call call>(const char* called, std::integral_constant<Call, call>) {
    auto* entry = reinterpret_cast<void*>(&enter_call<call>);  // the flags tell how it is called
    return PyMethodDef{called, reinterpret_cast<Function>(entry), kFast, nullptr};
  };
#define TORCHY_CALL(called, function) define(called, std::integral_constant<Call, &function>{})
  static std::array definitions{
      TORCHY_CALL("open", open_session),
      TORCHY_CALL("close", close_session),
      TORCHY_CALL("set", set_session),
      TORCHY_CALL("record_into", record_into),
      TORCHY_CALL("record_no_more", record_no_more),
      TORCHY_CALL("flush", flush_session),
      TORCHY_CALL("flush_here", flush_here),
      TORCHY_CALL("settle", settle),
      TORCHY_CALL("prepare", prepare),
      TORCHY_CALL("set_folders", set_folders),
      TORCHY_CALL("set_recordable", set_recordable),
      TORCHY_CALL("places", places),
      TORCHY_CALL("set_most_places", set_most_places),
      TORCHY_CALL("release_memory", release_memory),
      TORCHY_CALL("line_here", python_line_here),
      TORCHY_CALL("origin", root_number),
      TORCHY_CALL("tell_line", tell_line),
      TORCHY_CALL("counters", counters_of),
      TORCHY_CALL("take_log", take_log),
  };
#undef TORCHY_CALL
  for (PyMethodDef& definition : definitions)
    if (name == definition.name) return PyCFunction_NewEx(&definition, nullptr, nullptr);
  PyErr_SetString(PyExc_RuntimeError, ("the walker has no function " + name).c_str());
  return nullptr;
}

}  // namespace torchy
