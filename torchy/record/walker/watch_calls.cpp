#include "watch_calls.h"

#include <algorithm>

#include "calls.h"
#include "entries.h"
#include "replay.h"
#include "scan.h"

namespace torchy {

namespace {

constexpr const char* kReplay = "torchy.replay";

Replay& replay_of(PyObject* object) {
  auto* replay = static_cast<Replay*>(PyCapsule_GetPointer(object, kReplay));
  if (!replay) throw std::invalid_argument("not a replay");
  return *replay;
}

// The running trace of a session, if it is that flush.
std::shared_ptr<Trace> running_trace(int64_t id, int64_t serial) {
  const auto session = session_of(id);
  const Lock lock(shared_mutex);
  if (!session || !session->running || session->running->serial != serial)
    throw std::invalid_argument("this flush does not run any more");
  return session->running;
}

std::vector<int64_t> numbers_in(PyObject* bytes) {
  char* data = nullptr;
  std::ptrdiff_t size = 0;
  if (PyBytes_AsStringAndSize(bytes, &data, &size) != 0) throw std::invalid_argument("not bytes");
  std::vector<int64_t> numbers(static_cast<size_t>(size) / sizeof(int64_t));
  std::memcpy(numbers.data(), data, numbers.size() * sizeof(int64_t));
  return numbers;
}

// hold(session's id, flush's number): a replay of the flush that is running.
PyObject* hold(const Arguments& given) {
  const auto trace = running_trace(given.number(0), given.number(1));
  std::unique_ptr<Replay> replay;
  {
    const Lock lock(shared_mutex);
    replay = std::make_unique<Replay>(*trace);
  }
  PyObject* capsule = PyCapsule_New(replay.get(), kReplay, [](PyObject* dropped) {
    delete static_cast<Replay*>(PyCapsule_GetPointer(dropped, kReplay));
  });
  if (capsule) replay.release();
  return capsule;
}

// memory(session's id, flush's number): for each slot of the flush that is running where its memory
// is; as words.
PyObject* memory(const Arguments& given) {
  const auto trace = running_trace(given.number(0), given.number(1));
  const Lock lock(shared_mutex);
  return bytes_of(trace->addresses);
}

// suspects(session's id, flush's number): whether a call, or a check, tells of a birth.
PyObject* suspects(const Arguments& given) {
  const auto trace = running_trace(given.number(0), given.number(1));
  int64_t alarms = 0;
  return number(is_suspect(*trace, alarms));
}

// hunt_no_more(session)
PyObject* hunt_no_more(const Arguments& given) {
  given.session(0)->hunts = false;
  return nothing();
}

// add_checks(session's id, flush's number, views): checks like these views, to the flush that is
// running; once.
PyObject* add_checks_to(const Arguments& given) {
  const auto trace = running_trace(given.number(0), given.number(1));
  const auto like = numbers_in(given.items[2]);
  const Lock lock(shared_mutex);
  add_checks(*trace, like);
  return nothing();
}

// keep_inputs(session's id, flush's number): of the flush that is running, unless it has run.
PyObject* keep_inputs_of(const Arguments& given) {
  const auto trace = running_trace(given.number(0), given.number(1));
  {
    const WithoutGil without;
    keep_inputs(*trace);
  }
  return nothing();
}

// forget_inputs(session's id, flush's number): before it ends, or those that it reads count as
// shared.
PyObject* forget_inputs(const Arguments& given) {
  running_trace(given.number(0), given.number(1))->before.reset();
  return nothing();
}

// hash(address, bytes): 16 bytes that tell contents apart.
PyObject* hash(const Arguments& given) {
  std::array<uint64_t, 2> found{};
  {
    const auto* data = given.address<const char>(0);
    const auto bytes = static_cast<size_t>(given.number(1));
    const WithoutGil without;
    found = hash_of(data, bytes);
  }
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(found.data()), sizeof(found));
}

// odd(address, dtype's number, sizes and strides as words): which values are not finite, see Odd.
PyObject* odd(const Arguments& given) {
  const auto* data = given.address<const char>(0);
  const auto dtype = static_cast<c10::ScalarType>(given.number(1));
  const auto words = numbers_in(given.items[2]);
  const size_t rank = words.size() / 2;
  const c10::IntArrayRef all(words);
  int found = kNone;
  {
    const WithoutGil without;
    found = odd_among(data, dtype, all.slice(0, rank), all.slice(rank));
  }
  return number(found);
}

// replay_give(replay, slot, address): memory of an input, which stays there while the replay runs.
PyObject* replay_give(const Arguments& given) {
  replay_of(given.items[0]).give(static_cast<size_t>(given.number(1)), given.address<void>(2));
  return nothing();
}

// replay_run(replay, op, slots to release after it, as words): nanoseconds.
PyObject* replay_run(const Arguments& given) {
  Replay& replay = replay_of(given.items[0]);
  const auto op = static_cast<size_t>(given.number(1));
  const auto release = numbers_in(given.items[2]);
  int64_t took = 0;
  {
    const WithoutGil without;
    took = replay.run(op, release);
  }
  return number(took);
}

// replay_memory(replay): where each slot's memory is, as words.
PyObject* replay_memory(const Arguments& given) {
  return bytes_of(replay_of(given.items[0]).addresses());
}

// replay_give_all(replay): the inputs as they were before the flush.
PyObject* replay_give_all(const Arguments& given) {
  Replay& replay = replay_of(given.items[0]);
  {
    const WithoutGil without;
    replay.give_all();
  }
  return nothing();
}

// replay_let_go(replay): of these inputs.
PyObject* replay_let_go(const Arguments& given) {
  replay_of(given.items[0]).let_go();
  return nothing();
}

// replay_drop(replay): drops all that it made.
PyObject* replay_drop(const Arguments& given) {
  replay_of(given.items[0]).drop();
  return nothing();
}

// tiny_call(): nanoseconds that an op on a few elements takes in a replay.
PyObject* tiny_call_here(const Arguments&) {
  int64_t took = 0;
  {
    const WithoutGil without;
    took = tiny_call();
  }
  return number(took);
}

// birth(session): what an op that ran at once gave birth to, and it was the first: its name, line,
// how many had been recorded before, kinds, and for each of its operands dtype, address, sizes and
// strides (the memory stays while the session does); None if none has.
PyObject* birth(const Arguments& given) {
  const auto& session = given.session(0);
  std::optional<Birth> found;
  {
    const Lock lock(shared_mutex);
    found = session->birth;
  }
  if (!found) return nothing();
  const int64_t line = found->epoch == registry().epoch ? found->line : -1;
  Object operands = Object::owned(PyList_New(0));
  for (const at::Tensor& operand : found->operands) {
    std::vector<int64_t> words(operand.sizes().begin(), operand.sizes().end());
    words.insert(words.end(), operand.strides().begin(), operand.strides().end());
    const auto address = reinterpret_cast<int64_t>(operand.const_data_ptr());
    const Object item = Object::owned(tuple(number(static_cast<int64_t>(operand.scalar_type())),
                                            number(address), bytes_of(words)));
    if (!operands || !item || PyList_Append(operands.get(), item.get()) != 0) return nullptr;
  }
  return tuple(text(found->info->name), number(line), number(found->recorded), number(found->kinds),
               operands.release());
}

}  // namespace

PyObject* watch_call(const std::string& name) {
  static std::array definitions{
      TORCHY_CALL("hold", hold, 2),
      TORCHY_CALL("memory", memory, 2),
      TORCHY_CALL("suspects", suspects, 2),
      TORCHY_CALL("hunt_no_more", hunt_no_more, 1),
      TORCHY_CALL("add_checks", add_checks_to, 3),
      TORCHY_CALL("keep_inputs", keep_inputs_of, 2),
      TORCHY_CALL("forget_inputs", forget_inputs, 2),
      TORCHY_CALL("hash", hash, 2),
      TORCHY_CALL("odd", odd, 3),
      TORCHY_CALL("replay_give", replay_give, 3),
      TORCHY_CALL("replay_run", replay_run, 3),
      TORCHY_CALL("replay_memory", replay_memory, 1),
      TORCHY_CALL("replay_give_all", replay_give_all, 1),
      TORCHY_CALL("replay_let_go", replay_let_go, 1),
      TORCHY_CALL("replay_drop", replay_drop, 1),
      TORCHY_CALL("tiny_call", tiny_call_here, 0),
      TORCHY_CALL("birth", birth, 1),
  };
  for (PyMethodDef& definition : definitions)
    if (name == definition.name) return PyCFunction_NewEx(&definition, nullptr, nullptr);
  return nullptr;
}

}  // namespace torchy
