// What Python calls now and then: plain functions through ctypes (which gives up the GIL
// meanwhile), and torch ops where an exception of torch must reach Python as what it is. What it
// calls all the time is in calls.h.
#pragma once

#include <torch/library.h>

#include "calls.h"
#include "fork.h"
#include "meta.h"

namespace torchy {

// For the policy and the planner: an op at a place, with its pattern if the node is known. See
// `Place` in places.py.
inline c10::IValue describe(const Step& step, const Node* node) {
  const OpInfo& info = *step.info;
  c10::impl::GenericList arguments(c10::AnyType::get()), operands(c10::AnyType::get());
  int64_t runtime = 0;
  for (size_t i = 0; i < step.arguments.size(); ++i) {
    arguments.push_back(step.arguments[i]);
    if (info.runtime(i, step.arguments[i])) runtime |= int64_t{1} << i;
  }
  for (const Operand& operand : step.operands)
    operands.push_back(c10::ivalue::Tuple::create(
        {operand.view, operand.slot, static_cast<int64_t>(operand.dtype), operand.rank}));
  auto ints = [](const auto& items) { return std::vector<int64_t>(items.begin(), items.end()); };
  static const Node unknown;
  if (!node) node = &unknown;
  return c10::ivalue::Tuple::create(
      {step.id, c10::toString(info.op.operator_name()), info.pointwise, runtime,
       static_cast<int64_t>(info.writes | info.hidden_writes), step.line, arguments, operands,
       ints(node->pattern), ints(node->result_views), ints(node->result_slots)});
}

// Hands a record over: its numbers, then address and bytes of each of its arrays.
inline Running* tell(Running&& record, int64_t* out) {
  auto moved = std::make_unique<Running>(std::move(record));
  for (int64_t value :
       {moved->script, moved->serial, moved->at, moved->visits, moved->program, moved->size})
    *out++ = value;
  auto array = [&out](const auto& items) {
    *out++ = reinterpret_cast<int64_t>(items.data());
    *out++ = static_cast<int64_t>(items.size() * sizeof items[0]);
  };
  array(moved->ids);
  array(moved->words);
  array(moved->numbers);
  array(moved->times);
  array(moved->flags);
  return moved.release();
}

// Boxed kernels, since schemas have no C++ type for "anything".
inline void describe_node(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const int64_t id = torch::jit::pop(*stack).toInt();
  std::lock_guard<std::mutex> lock(registry().mutex);
  const Node* node = registry().nodes.at(id);
  stack->push_back(describe(*node->step, node));
}

inline void describe_step(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const int64_t id = torch::jit::pop(*stack).toInt();
  std::lock_guard<std::mutex> lock(registry().mutex);
  stack->push_back(describe(*registry().steps.at(id), nullptr));
}

}  // namespace torchy

#pragma GCC visibility push(default)
extern "C" {

using torchy::registry;

// From now on there is a Python kernel for torchy::ask. `tiny_op`: the seconds that eager takes for
// an op on a few elements.
void torchy_listen(double tiny_op) {
  torchy::listening() = true;
  torchy::Balance::tiny_op = tiny_op;
  torchy::guard_forks();
}

// An op's kernels have changed.
void torchy_renew(const char* name) {
  const std::string full = name;
  const auto dot = full.find('.');
  const bool plain = dot == std::string::npos;
  torchy::claims().renew({full.substr(0, dot), plain ? "" : full.substr(dot + 1)});
}

void torchy_set_op(int64_t id, int64_t op_class, int64_t pointwise, int64_t rule, uint64_t runtime,
                   uint64_t unless_one, uint64_t hidden) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& info = *registry().ops[id];
  info.pointwise = pointwise != 0;
  info.rule = static_cast<torchy::LayoutRule>(rule);
  info.meta = torchy::meta_kernel(c10::toString(info.op.operator_name()));
  if (info.rule == torchy::LayoutRule::kLearn && info.meta) info.rule = torchy::LayoutRule::kMeta;
  info.runtime_numbers = runtime;
  info.unless_one = unless_one;
  info.hidden_writes = hidden;
  bool possible = info.fresh_tensors && info.results > 0 && info.arguments <= 64;
  auto wanted = static_cast<torchy::OpClass>(op_class);
  info.op_class =
      wanted == torchy::OpClass::kDefer && !possible ? torchy::OpClass::kRunNow : wanted;
}

// The session that this thread records into from now on; -1: none.
void torchy_attach(int64_t id) { torchy::attach(id < 0 ? nullptr : torchy::session_of(id)); }

// Forgets all places, if there is no session but this one, and no trace stands on them; 0 if not.
// Called on the session's own thread: no other one is in the midst of recording then.
int64_t torchy_forget(int64_t id) {
  auto& all = registry();
  decltype(all.roots) roots;  // dropped without the mutex
  decltype(all.signatures) signatures;
  std::unique_lock<std::mutex> lock(all.mutex);
  for (const auto& session : all.sessions) {
    if (session->id != id || !session->trace->path.empty() || session->running) return 0;
    session->origin = -1;
    session->root = nullptr;
  }
  roots.swap(all.roots);
  signatures.swap(all.signatures);
  all.nodes.clear();
  all.steps.clear();
  ++all.epoch;
  lock.unlock();  // nothing waits for the GIL while holding it
  torchy::Gil gil;
  torchy::lines().clear();
  return 1;
}

// Nested: while paused (1), this thread's ops are run, not recorded; 0 ends the last pause.
void torchy_pause(int64_t on) { torchy::pause(on); }

// Before this thread forks (1) and after it (0, in the child too).
void torchy_hold_flushes(int64_t on) { on ? torchy::hold_flushes() : torchy::let_flushes_go(); }

// Whether this thread is in the midst of a session's flush.
int64_t torchy_flushes(int64_t id) {
  auto session = torchy::session_of(id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  return session && session->flusher == std::this_thread::get_id();
}

int64_t torchy_begin(int64_t id) {
  auto session = torchy::session_of(id);
  return session ? torchy::begin_flush(*session, /*wait=*/true) : 0;
}

void torchy_leave(int64_t id) {
  if (auto session = torchy::session_of(id)) torchy::leave_flush(*session);
}

int64_t torchy_finish(int64_t id, int64_t origin) {
  auto session = torchy::session_of(id);
  return session ? torchy::finish_flush(*session, origin) : -1;
}

// A copy of the running trace, to be freed; null if none is running.
torchy::Running* torchy_running(int64_t id, int64_t* out) {
  auto session = torchy::session_of(id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  if (!session || !session->running) return nullptr;
  auto& trace = *session->running;
  trace.seen = true;
  std::vector<int64_t> ids;
  for (const auto* node : trace.path) ids.push_back(node->id);
  return torchy::tell(
      {trace.script, trace.serial, trace.at, trace.path.back()->flushes,
       reinterpret_cast<int64_t>(trace.own.data()), static_cast<int64_t>(trace.own.size()),
       std::move(ids), trace.words, trace.numbers, trace.times, trace.flags},
      out);
}

// From now on, flushes like the one that is running, for a reason and a text, are run by the
// walker. 0: there are too many already, or it is known. `lists`: how many slots are never stored,
// those; how many views the fused ops read or write, those.
int64_t torchy_remember(int64_t session_id, int64_t reason, const char* text,
                        const int64_t* program, int64_t size, int64_t id, int64_t origin,
                        const int64_t* lists) {
  auto session = torchy::session_of(session_id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  if (!session || !session->running) return 0;
  auto& trace = *session->running;
  auto& scripts = trace.path.back()->scripts;
  constexpr size_t kScripts = 16;
  if (scripts.size() >= kScripts) return 0;
  auto script = std::make_shared<torchy::Script>();
  script->id = id;
  script->variant = session->variant;
  script->reason = reason;
  script->text = text;
  script->flags = trace.flags;
  script->program = program;
  script->size = size;
  script->origin = origin;
  script->ops = static_cast<int64_t>(trace.path.size());
  torchy::Cursor cursor{lists};
  for (auto* list : {&script->unstored, &script->moved}) *list = cursor.list().vec();
  for (auto& known : scripts)
    if (known->matches(*script)) return 0;
  scripts.push_back(std::move(script));
  return 1;
}

void torchy_free_record(torchy::Running* record) { std::unique_ptr<torchy::Running> freed(record); }

// Notes a flush that Python has run: ops, bytes that eager would have moved for those that are
// fused, nanoseconds. 1 if the session has cost more than it has brought.
int64_t torchy_weigh(int64_t id, int64_t ops, int64_t bytes, int64_t nanoseconds) {
  auto session = torchy::session_of(id);
  if (!session) return 0;
  std::lock_guard<std::mutex> lock(registry().mutex);
  session->balance.add(ops, bytes, 1e-9 * static_cast<double>(nanoseconds));
  return session->balance.loses();
}

// Whether almost no op has been recorded since this was asked last.
int64_t torchy_only_walks(int64_t id) {
  auto session = torchy::session_of(id);
  if (!session) return 0;
  std::lock_guard<std::mutex> lock(registry().mutex);
  return session->balance.only_walks(session->recorded, session->run_now);
}

// The sessions that must flush before a storage is read (or, with `written`, written): their ids,
// and how many.
int64_t torchy_owing(c10::StorageImpl* storage, int64_t written, int64_t* out, int64_t room) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  bool pending = false;
  auto sessions = torchy::holders(storage, &pending);
  if (!pending && !written) return 0;
  int64_t count = 0;
  for (const auto& session : sessions)
    if (count < room) out[count++] = session->id;
  return count;
}

// A tensor's storage; null if it has none.
c10::StorageImpl* torchy_storage(c10::TensorImpl* tensor) {
  return tensor->has_storage() ? tensor->unsafe_storage().unsafeGetStorageImpl() : nullptr;
}

int64_t torchy_is_pending(c10::TensorImpl* tensor) {
  auto* storage = torchy_storage(tensor);
  if (!storage) return 0;
  std::lock_guard<std::mutex> lock(registry().mutex);
  bool pending = false;
  torchy::holders(storage, &pending);
  return pending;
}

// From now on, ops on this storage run at once: something outside torch can see its memory.
void torchy_escaped(c10::StorageImpl* storage) { torchy::note_escape(storage); }

// Called with the GIL, unlike the others. See hooks.h.
PyObject* torchy_hook(const char* name, const char* doc, PyObject* before, PyObject* original,
                      int64_t is_method, PyObject* owner, PyObject* module) {
  return torchy::make_hook(name, doc, before, original, is_method != 0, owner, module);
}

// The same: one of the functions in calls.h, as a Python function.
PyObject* torchy_call(const char* name) { return torchy::python_call(name); }

}  // extern "C"
#pragma GCC visibility pop

TORCH_LIBRARY(torchy, m) {
  m.def("execute(int session, int program, int size) -> int", &torchy::execute_program);
  m.def("describe_node(int id) -> Any",
        torch::CppFunction::makeFromBoxedFunction<&torchy::describe_node>());
  m.def("describe_step(int id) -> Any",
        torch::CppFunction::makeFromBoxedFunction<&torchy::describe_step>());
  m.def("ask(int what, int session, int argument, str text) -> int");
}
