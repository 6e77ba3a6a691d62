#include "calls.h"

#include <link.h>

#include <array>
#include <iterator>
#include <sstream>
#include <tuple>

#include "api.h"
#include "claim.h"
#include "entries.h"
#include "hooks.h"
#include "interpret.h"
#include "pool.h"
#include "settle.h"
#include "source.h"
#include "watch_calls.h"

namespace torchy {

namespace {

// Null if it has none.
c10::StorageImpl* storage_of(const c10::TensorImpl& tensor) {
  return tensor.has_storage() ? tensor.unsafe_storage().unsafeGetStorageImpl() : nullptr;
}

void forget_session(const std::shared_ptr<Session>& session) TORCHY_REQUIRES(shared_mutex) {
  if (Pace* looks = session->looks()) {
    looks->leave(std::chrono::steady_clock::now());
    session->paces->looking = nullptr;
  }
  open_sessions -= static_cast<int64_t>(
      std::erase_if(registry().sessions, [&](const auto& known) { return known == session; }));
}

// The number of a session's place as Python has it: see SessionPlace.
int64_t origin_of(int64_t place) { return place <= kRests ? kRests - place : place; }

// open(id, mode, max ops, slack, whether there is a pool, whether it may sleep, the place where it
// begins): a session that is new.
PyObject* open_session(const Arguments& given) {
  auto session = std::make_shared<Session>();
  session->id = given.number(0);
  session->mode = static_cast<SessionMode>(given.number(1));
  if (session->mode == SessionMode::kCarry) carries_all = true;
  session->max_ops = static_cast<size_t>(given.number(2));
  session->slack_bytes = static_cast<size_t>(given.number(3));
  if (given.number(4)) Pool::get().install();
  auto held = std::make_unique<std::shared_ptr<Session>>(session);
  PyObject* capsule = PyCapsule_New(held.get(), kSession, [](PyObject* dropped) {
    std::unique_ptr<std::shared_ptr<Session>> last(
        static_cast<std::shared_ptr<Session>*>(PyCapsule_GetPointer(dropped, kSession)));
    const Lock lock(shared_mutex);
    if (!(*last)->owes()) forget_session(*last);  // an interrupt came before Python had it
  });
  if (!capsule) return nullptr;
  held.release();
  const uint64_t now = Pool::get().now();
  const Lock lock(shared_mutex);
  session->trace = registry().empty_trace();
  if (given.number(5)) session->paces = paces_at(origin_of(given.number(6)));
  if (registry().sessions.empty()) registry().opened = now;
  registry().sessions.push_back(std::move(session));
  ++open_sessions;
  return capsule;
}

// set(session, variant, whether first flushes are interpreted, whether dead ops are left out,
// whether it may sleep, whether Python sees each flush, whether NaNs are looked for)
PyObject* set_session(const Arguments& given) {
  Session& session = *given.session(0);
  const Lock lock(shared_mutex);
  session.settings = {given.number(1), given.number(2) != 0, given.number(3) != 0,
                      given.number(4) != 0, given.number(5) != 0};
  session.hunts = given.number(6) != 0;
  session.napping = false;
  return nothing();
}

// never(session, names): the ops that it runs at once though they could be deferred.
PyObject* set_never(const Arguments& given) {
  Session& session = *given.session(0);
  std::istringstream names(given.text(1));
  const Lock lock(shared_mutex);
  session.never = {std::istream_iterator<std::string>(names), {}};
  session.picks = !session.never.empty();
  return nothing();
}

// place_here(): the number of the place where a session is about to begin, -1 if there is none;
// kRests less that number if it may as well sleep: recording has not paid there, or is compared.
PyObject* place_here(const Arguments&) {
  const int64_t origin = lines().origin(lines().caller());
  const Lock lock(shared_mutex);
  const auto known = registry().paces.find(origin);
  if (known == registry().paces.end()) return number(origin);
  Pace& sessions = known->second->sessions;
  sessions.begin(std::chrono::steady_clock::now());
  return number(sessions.runs_now() ? kRests - origin : origin);
}

// rested_here(place): such a session has ended.
PyObject* rested_here(const Arguments& given) {
  const Lock lock(shared_mutex);
  const auto known = registry().paces.find(origin_of(given.number(0)));
  if (known != registry().paces.end())
    known->second->sessions.end(std::chrono::steady_clock::now(), Piece::kSteady);
  return nothing();
}

// record_into(session): what this thread's ops are recorded into from now on.
PyObject* record_into(const Arguments& given) {
  const auto& session = given.session(0);
  {
    const Lock lock(shared_mutex);
    if (!session->trace) throw std::invalid_argument("a session that has been closed");
  }
  attach(session);
  const Lock lock(shared_mutex);
  if (!session->paces) return nothing();
  Paces& paces = *session->paces;
  if (session->began != Pace::Time()) {  // a region within it has ended, or wakes it
    if (Pace* looks = session->looks()) looks->wake();
    return nothing();
  }
  session->began = std::chrono::steady_clock::now();
  paces.sessions.begin(session->began);
  if (paces.looking) return nothing();
  paces.looking = session.get();
  paces.looks.begin(session->began);
  session->napping = paces.looks.runs_now();
  return nothing();
}

// nap(session): what was pending before a trial has been computed, or could not be.
PyObject* nap(const Arguments& given) {
  begin_nap(*given.session(0));
  return nothing();
}

// record_no_more(): as if this thread had no session.
PyObject* record_no_more(const Arguments&) {
  attach(nullptr);
  return nothing();
}

// close(session): 1 if the walker has let go of it; 0 if it has values to compute still, or a
// thread records into it.
PyObject* close_session(const Arguments& given) {
  const auto& session = given.session(0);
  std::optional<uint64_t> opened;
  std::shared_ptr<Trace> trace;
  {
    const Lock lock(shared_mutex);
    if (session->owes() || session->attached > 0) return number(0);
    forget_session(session);
    trace = std::move(session->trace);
    if (session->paces && session->counters.recorded > 0)
      session->paces->sessions.end(std::chrono::steady_clock::now(), session->since({}));
    if (registry().sessions.empty()) opened = registry().opened;
  }
  registry().give_back(std::move(trace));
  if (opened) Pool::get().trim(*opened);  // what the last one did not use
  return number(1);
}

// What a look has come to, once that is noted as the end of a piece of work: the same, or what the
// session should do then.
Repeated after_look(Session& session, Repeated repeated) {
  if (repeated == Repeated::kNo) return repeated;
  const AfterLook after = note_look(session);
  if (after == AfterLook::kSleeps) return Repeated::kMindPace;
  return after == AfterLook::kNaps ? Repeated::kMindNap : repeated;
}

// flush(session, reason): a Repeated; kNo if Python is to do it.
PyObject* flush_session(const Arguments& given) {
  const std::shared_ptr<Session> session = given.session(0);
  const std::string reason = given.text(1);
  auto repeated = Repeated::kYes;
  {
    UniqueLock lock(shared_mutex);
    const bool idle = !session->owes();
    lock.release();
    if (!idle) {
      WithoutGil without;
      repeated = flush_for_python(*session, reason);
    }
  }
  return number(static_cast<int64_t>(after_look(*session, repeated)));
}

// flush_here(reason): the same for this thread's session; kNo also if it has none.
PyObject* flush_here(const Arguments& given) {
  auto repeated = Repeated::kNo;
  if (this_session) {
    const std::string reason = given.text(0);
    UniqueLock lock(shared_mutex);
    const bool idle = !this_session->owes();
    lock.release();
    const std::shared_ptr<Session> session = this_session;
    repeated = Repeated::kYes;
    if (!idle) {
      const WithoutGil without;
      repeated = flush_for_python(*session, reason);
    }
    repeated = after_look(*session, repeated);
  }
  return number(static_cast<int64_t>(repeated));
}

// What is pending on a tensor that something outside the walker looks at, or, if its memory leaves
// torch, what still reads that.
Repeated settle_for_python(c10::TensorImpl& tensor, bool escapes, const std::string& reason) {
  auto done = Repeated::kYes;
  if (!tensor.has_storage()) return done;
  auto* storage = tensor.unsafe_storage().unsafeGetStorageImpl();
  std::vector<std::shared_ptr<Session>> sessions;
  bool pending = false;
  if (storage->has_materializer()) {
    const Lock lock(shared_mutex);
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
PyObject* settle(const Arguments& given) {
  auto* tensor = given.address<c10::TensorImpl>(0);
  const bool escapes = given.number(1) != 0;
  const std::string reason = given.text(2);
  auto settled = Repeated::kNo;
  {
    WithoutGil without;
    settled = settle_for_python(*tensor, escapes, reason);
  }
  if (const std::shared_ptr<Session> session = this_session)
    settled = after_look(*session, settled);
  return number(static_cast<int64_t>(settled));
}

// release(): gives back to the system the memory that is kept for tensors to come; how many bytes.
PyObject* release_memory(const Arguments&) {
  return number(static_cast<int64_t>(Pool::get().release()));
}

// prepare(): before a region begins; how many shared libraries the process has loaded so far.
PyObject* prepare(const Arguments&) {
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
PyObject* places(const Arguments&) {
  constexpr size_t kLines = 8;
  const Lock lock(shared_mutex);
  return number(static_cast<int64_t>(std::max(registry().steps.size(), lines().size() / kLines)));
}

// set_most_places(count): from which on they are forgotten.
PyObject* set_most_places(const Arguments& given) {
  const Lock lock(shared_mutex);
  registry().most_places = static_cast<size_t>(given.number(0));
  return nothing();
}

std::vector<std::string> texts_of(PyObject* sequence) {
  std::vector<std::string> texts;
  for (std::ptrdiff_t i = 0; i < PySequence_Size(sequence); ++i)
    texts.push_back(text_of(Object::owned(PySequence_GetItem(sequence, i)).get()));
  return texts;
}

std::vector<int64_t> numbers_of(PyObject* sequence) {
  std::vector<int64_t> numbers;
  for (std::ptrdiff_t i = 0; i < PySequence_Size(sequence); ++i)
    numbers.push_back(PyLong_AsLongLong(Object::owned(PySequence_GetItem(sequence, i)).get()));
  return numbers;
}

// set_folders(own, of libraries): whose code is not the program's.
PyObject* set_folders(const Arguments& given) {
  lines().set_folders(texts_of(given.items[0]), texts_of(given.items[1]));
  return nothing();
}

// set_recordable(names): ops that are recorded, without overload; before the first region.
PyObject* set_recordable(const Arguments& given) {
  for (std::string& name : texts_of(given.items[0])) recordable_ops().insert(std::move(name));
  return nothing();
}

// remember(session's id, flush's number, reason, text, program's address, its words, script's id,
// origin, slots that are never stored, views that fused ops read or write, views that its checks
// are like): from now on, flushes like the one that is running, for this reason and text, are run
// by the walker. 0: there are too many already, or it is known.
PyObject* remember(const Arguments& given) {
  constexpr size_t kScripts = 16;
  const auto session = session_of(given.number(0));
  auto script = std::make_shared<Script>();
  const int64_t serial = given.number(1);
  script->reason = given.number(2);
  script->text = given.text(3);
  script->program = given.address<const int64_t>(4);
  script->size = given.number(5);
  script->id = given.number(6);
  script->origin = given.number(7);
  script->unstored = numbers_of(given.items[8]);
  script->moved = numbers_of(given.items[9]);
  script->checks = numbers_of(given.items[10]);
  if (PyErr_Occurred()) return nullptr;
  bool added = false;
  {
    const Lock lock(shared_mutex);
    if (session && session->running && session->running->serial == serial) {
      const Trace& trace = *session->running;
      script->variant = session->settings.variant;
      script->flags = trace.flags;
      script->flags.resize(trace.flags.size() - trace.checks);  // these come when it is run
      script->ops = static_cast<int64_t>(trace.path.size());
      auto& scripts = trace.path.back()->scripts;
      const auto same = [&](const auto& known) { return known->matches(*script); };
      added = scripts.size() < kScripts && std::none_of(scripts.begin(), scripts.end(), same);
      if (added) scripts.push_back(std::move(script));
    }
  }
  return number(added);
}

// codes(): the numbers, records and functions that the walker shares with Python.
PyObject* codes(const Arguments&) { return text(codes_as_text() + functions_as_text()); }

// line_here(): that of the program, as a number; -1 if there is none.
PyObject* python_line_here(const Arguments&) { return number(lines().here()); }

// origin(line): the number of the root for what is recorded after a flush there.
PyObject* root_number(const Arguments& given) { return number(lines().origin(given.number(0))); }

// tell_line(line): its file and number.
PyObject* tell_line(const Arguments& given) {
  const auto [file, line] = lines().tell(given.number(0));
  return tuple(text(file), number(line));
}

// counters(session)
PyObject* counters_of(const Arguments& given) {
  const Counters& counters = given.session(0)->counters;
#define TORCHY_ITEM(name) number(counters.name),
  const std::array items{TORCHY_COUNTERS(TORCHY_ITEM)};
#undef TORCHY_ITEM
  return tuple_of(items);
}

// running(session's id): a copy of the trace that is being flushed; None if none is.
PyObject* running(const Arguments& given) {
  const auto session = session_of(given.number(0));
  Running copy;
  {
    const Lock lock(shared_mutex);
    if (!session || !session->running) return nothing();
    Trace& trace = *session->running;
    trace.seen = true;
    copy.script = trace.script;
    copy.serial = trace.serial;
    copy.at = trace.at;
    copy.visits = trace.path.back()->flushes;
    copy.refusals = trace.path.back()->refusals;
    copy.program = reinterpret_cast<int64_t>(trace.own.data());
    copy.size = static_cast<int64_t>(trace.own.size());
    for (const Node* node : trace.path) copy.path.push_back(node->id);
    copy.words = trace.words;
    copy.numbers = trace.numbers;
    copy.times = trace.times;
    copy.flags = trace.flags;
  }
#define TORCHY_ITEM(name) number(copy.name),
#define TORCHY_BYTES(name) bytes_of(copy.name),
  const std::array items{TORCHY_RECORD(TORCHY_ITEM) TORCHY_RECORD_ARRAYS(TORCHY_BYTES)};
#undef TORCHY_ITEM
#undef TORCHY_BYTES
  return tuple_of(items);
}

// storage(tensor's address): that of its storage, 0 if it has none.
PyObject* storage_address(const Arguments& given) {
  return number(reinterpret_cast<int64_t>(storage_of(*given.address<c10::TensorImpl>(0))));
}

// is_pending(tensor's address)
PyObject* is_pending(const Arguments& given) {
  auto* storage = storage_of(*given.address<c10::TensorImpl>(0));
  bool pending = false;
  if (storage) {
    const Lock lock(shared_mutex);
    holders(storage, &pending);
  }
  return number(pending);
}

// owing(storage's address, whether it is written): the ids of the sessions that must flush before.
PyObject* owing(const Arguments& given) {
  std::vector<std::shared_ptr<Session>> sessions;
  bool pending = false;
  {
    const Lock lock(shared_mutex);
    sessions = holders(given.address<c10::StorageImpl>(0), &pending);
  }
  if (!pending && !given.number(1)) sessions.clear();
  Object ids = Object::owned(PyList_New(0));
  for (const auto& session : sessions) {
    const Object id = Object::owned(number(session->id));
    if (!ids || !id || PyList_Append(ids.get(), id.get()) != 0) return nullptr;
  }
  return ids.release();
}

// For a flush by a script its id; else what it takes to plan it.
PyObject* origin_of(const Flushed& flushed) {
  if (flushed.script) return number(flushed.script->id);
  const Unplanned& unplanned = *flushed.unplanned;
  return tuple(bytes_of(unplanned.path), bytes_of(unplanned.flags), number(unplanned.reason),
               text(unplanned.text), number(unplanned.line), number(unplanned.variant));
}

PyObject* take_ran_now(Session& session) {
  const auto sums = [&] {
    const Lock lock(shared_mutex);
    return session.ran_now.take(registry().epoch);
  }();
  Object told = Object::owned(PyList_New(0));
  for (const auto& [key, sum] : sums) {
    const auto& [info, line, why] = key;
    const Object item =
        Object::owned(tuple(text(info->name), number(line), number(static_cast<int64_t>(why)),
                            number(sum.began), number(sum.count), number(sum.nanoseconds)));
    if (!told || !item || PyList_Append(told.get(), item.get()) != 0) return nullptr;
  }
  return told.release();
}

// take_log(session): the flushes that Python has not seen, the newest as raw records, of the others
// sums by script; and what has run at once.
PyObject* take_log(const Arguments& given) {
  const auto [records, sums] = [&] {
    const Lock lock(shared_mutex);
    return given.session(0)->log.take(registry().epoch);
  }();
  const Object told = Object::owned(PyList_New(0)), summed = Object::owned(PyList_New(0));
  Object ran_now = Object::owned(take_ran_now(*given.session(0)));
  if (!told || !summed || !ran_now) return nullptr;
  Object words;  // of the last record: the next one has the same, mostly
  const std::vector<int64_t>* last = nullptr;
  for (const Flushed& flushed : records) {
    if (flushed.words.get() != last) words = Object::owned(bytes_of(*flushed.words));
    last = flushed.words.get();
    const c10::IntArrayRef both(flushed.numbers_and_times);
    const Object record = Object::owned(
        tuple(origin_of(flushed), number(flushed.began), number(flushed.nanoseconds),
              number(flushed.saved), number(static_cast<int64_t>(flushed.held)),
              Object::borrowed(words.get()).release(), bytes_of(both.slice(0, flushed.numbers)),
              bytes_of(both.slice(flushed.numbers))));
    if (!record || PyList_Append(told.get(), record.get()) != 0) return nullptr;
  }
  for (const auto& [script, sum] : sums) {
    const Object item = Object::owned(tuple(number(script), number(sum.count), number(sum.ops),
                                            number(sum.nanoseconds), number(sum.saved)));
    if (!item || PyList_Append(summed.get(), item.get()) != 0) return nullptr;
  }
  return PyTuple_Pack(3, told.get(), summed.get(), ran_now.get());
}

}  // namespace

void pause(int64_t on) {
  static thread_local std::vector<std::unique_ptr<Paused>> pauses;
  if (on > 0) {
    pauses.push_back(std::make_unique<Paused>());
  } else if (!pauses.empty()) {
    pauses.pop_back();
  }
  while (on < 0 && !pauses.empty()) pauses.pop_back();
}

PyObject* python_call(const std::string& name) {
  static std::array definitions{
      TORCHY_CALL("open", open_session, 7),
      TORCHY_CALL("place_here", place_here, 0),
      TORCHY_CALL("rested_here", rested_here, 1),
      TORCHY_CALL("close", close_session, 1),
      TORCHY_CALL("set", set_session, 7),
      TORCHY_CALL("never", set_never, 2),
      TORCHY_CALL("nap", nap, 1),
      TORCHY_CALL("record_into", record_into, 1),
      TORCHY_CALL("record_no_more", record_no_more, 0),
      TORCHY_CALL("flush", flush_session, 2),
      TORCHY_CALL("flush_here", flush_here, 1),
      TORCHY_CALL("settle", settle, 3),
      TORCHY_CALL("prepare", prepare, 0),
      TORCHY_CALL("set_folders", set_folders, 2),
      TORCHY_CALL("set_recordable", set_recordable, 1),
      TORCHY_CALL("places", places, 0),
      TORCHY_CALL("set_most_places", set_most_places, 1),
      TORCHY_CALL("release_memory", release_memory, 0),
      TORCHY_CALL("line_here", python_line_here, 0),
      TORCHY_CALL("origin", root_number, 1),
      TORCHY_CALL("tell_line", tell_line, 1),
      TORCHY_CALL("counters", counters_of, 1),
      TORCHY_CALL("running", running, 1),
      TORCHY_CALL("storage", storage_address, 1),
      TORCHY_CALL("is_pending", is_pending, 1),
      TORCHY_CALL("owing", owing, 2),
      TORCHY_CALL("take_log", take_log, 1),
      TORCHY_CALL("remember", remember, 11),
      TORCHY_CALL("codes", codes, 0),
  };
  for (PyMethodDef& definition : definitions)
    if (name == definition.name) return PyCFunction_NewEx(&definition, nullptr, nullptr);
  if (PyObject* found = watch_call(name)) return found;
  PyErr_SetString(PyExc_RuntimeError, ("the walker has no function " + name).c_str());
  return nullptr;
}

}  // namespace torchy
