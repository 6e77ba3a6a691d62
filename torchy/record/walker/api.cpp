// What Python calls now and then: plain functions through ctypes (which gives up the GIL
// meanwhile), and torch ops where an exception of torch must reach Python as what it is. What it
// calls all the time is in calls.h.

#include "api.h"

#include <torch/library.h>

#include <memory>
#include <string>
#include <type_traits>

#include "calls.h"
#include "claim.h"
#include "execute.h"
#include "finish.h"
#include "fork.h"
#include "hooks.h"
#include "interpret.h"
#include "meta.h"
#include "settle.h"
#include "source.h"

namespace torchy {

namespace {

// For the policy and the planner: an op at a place, with its pattern if the node is known. See
// `Place` in places.py.
c10::IValue describe(const Step& step, const Node* node) {
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
  return c10::ivalue::Tuple::create({step.id, info.name, info.pointwise, runtime,
                                     static_cast<int64_t>(info.writes | info.hidden_writes),
                                     step.line, arguments, operands, ints(node->pattern),
                                     ints(node->result_views), ints(node->result_slots)});
}

// Boxed kernels, since schemas have no C++ type for "anything".
void describe_node(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const int64_t id = torch::jit::pop(*stack).toInt();
  const Lock lock(shared_mutex);
  const Node* node = registry().nodes.at(id);
  TORCH_CHECK(node->step, "torchy: node ", id, " is where traces begin: it has no op");
  stack->push_back(describe(*node->step, node));
}

void describe_step(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const int64_t id = torch::jit::pop(*stack).toInt();
  const Lock lock(shared_mutex);
  stack->push_back(describe(*registry().steps.at(id), nullptr));
}

}  // namespace

}  // namespace torchy

#pragma GCC visibility push(default)
extern "C" {

using torchy::registry;

// From now on there is a Python kernel for torchy::ask. `tiny_op`: the seconds that eager takes for
// an op on a few elements.
void torchy_listen(double tiny_op) {
  torchy::listening() = true;
  torchy::Balance::tiny_op = tiny_op;
  torchy::watch_access();
  torchy::guard_forks();
}

// What may go into interpreting before it is planned, by op. 0: second flushes are planned.
void torchy_set_planning(double seconds) { torchy::planning_seconds = seconds; }

// An op's kernels have changed.
void torchy_renew(const char* name) {
  const std::string full = name;
  const auto dot = full.find('.');
  const bool plain = dot == std::string::npos;
  torchy::claims().renew({full.substr(0, dot), plain ? "" : full.substr(dot + 1)});
}

void torchy_set_op(int64_t id, int64_t op_class, int64_t pointwise, int64_t rule,
                   int64_t minds_precision, uint64_t runtime, uint64_t unless_one, uint64_t hidden,
                   int64_t indices, int64_t into, int64_t dimension_argument, int64_t dimension,
                   int64_t ignored, int64_t asks, int64_t fusable) {
  const torchy::Lock lock(torchy::shared_mutex);
  auto& info = *registry().ops[id];
  if (info.op_class != torchy::OpClass::kUnknown) return;  // another thread has asked, too
  info.pointwise = pointwise != 0;
  info.minds_precision = minds_precision != 0;
  info.asks = asks != 0;
  info.fusable = fusable != 0;
  info.rule = static_cast<torchy::LayoutRule>(rule);
  info.meta = torchy::meta_kernel(info.name);
  if (info.rule == torchy::LayoutRule::kLearn && info.meta) info.rule = torchy::LayoutRule::kMeta;
  info.runtime_numbers = runtime;
  info.unless_one = unless_one;
  info.hidden_writes = hidden;
  info.indices = {static_cast<int>(indices), static_cast<int>(into),
                  static_cast<int>(dimension_argument), static_cast<int>(ignored), dimension};
  // what arrives unboxed is recorded without a look at its data
  bool possible = info.fresh_tensors && info.results > 0 && info.arguments <= 64 &&
                  !(indices >= 0 && info.typed);
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
  auto roots = std::make_shared<torchy::Roots>();  // dropped without the mutex
  decltype(all.signatures) signatures;
  torchy::UniqueLock lock(torchy::shared_mutex);
  for (const auto& session : all.sessions) {
    if (session->id != id || !session->trace->path.empty() || session->running) return 0;
    session->origin = -1;
    session->root = nullptr;
  }
  roots.swap(all.roots);
  signatures.swap(all.signatures);
  all.nodes.clear();
  all.steps.clear();
  all.paces.clear();  // by lines, too
  ++all.epoch;
  lock.release();  // nothing waits for the GIL while holding it
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
  const torchy::Lock lock(torchy::shared_mutex);
  return session && session->flusher == std::this_thread::get_id();
}

int64_t torchy_begin(int64_t id) {
  auto session = torchy::session_of(id);
  const auto claim =
      session ? torchy::begin_flush(*session, /*wait=*/true).first : torchy::Claim::kNothing;
  return static_cast<int64_t>(claim);
}

void torchy_leave(int64_t id) {
  if (auto session = torchy::session_of(id)) torchy::leave_flush(*session);
}

int64_t torchy_finish(int64_t id, int64_t serial, int64_t origin) {
  auto session = torchy::session_of(id);
  std::shared_ptr<torchy::Trace> trace;
  if (session) {
    const torchy::Lock lock(torchy::shared_mutex);
    trace = session->running;
  }
  if (!trace || trace->serial != serial) return -1;
  return torchy::finish_flush(*session, origin, trace.get());
}

// The kernels for flushes like the one that is running are not there yet: until as much again has
// been spent, the walker goes on interpreting them.
void torchy_put_off(int64_t id, int64_t serial) {
  auto session = torchy::session_of(id);
  const torchy::Lock lock(torchy::shared_mutex);
  if (!session || !session->running || session->running->serial != serial) return;
  session->running->path.back()->spent = 0;
  ++session->settling;
}

// Notes a flush that Python has run: see Balance::Flush; nanoseconds. 1 if the session has cost
// more than it has brought.
int64_t torchy_weigh(int64_t id, int64_t ops, int64_t calls, int64_t bytes, int64_t nanoseconds) {
  auto session = torchy::session_of(id);
  if (!session) return 0;
  const torchy::Lock lock(torchy::shared_mutex);
  session->balance.add({ops, calls, bytes, 1e-9 * static_cast<double>(nanoseconds)},
                       session->counters.run_now);
  return session->balance.loses() && !session->pays();
}

// Whether almost no op has been recorded since this was asked last.
int64_t torchy_only_walks(int64_t id) {
  auto session = torchy::session_of(id);
  if (!session) return 0;
  const torchy::Lock lock(torchy::shared_mutex);
  return session->balance.only_walks(session->counters.recorded, session->counters.run_now);
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

namespace torchy {

namespace {

template <typename T>
constexpr char letter_of() {
  if constexpr (std::is_void_v<T>) return 'v';
  if constexpr (std::is_same_v<T, int64_t>) return 'i';
  if constexpr (std::is_same_v<T, uint64_t>) return 'u';
  if constexpr (std::is_same_v<T, double>) return 'd';
  if constexpr (std::is_same_v<T, const char*>) return 't';
  if constexpr (std::is_pointer_v<T>) return 'p';
}

template <typename R, typename... A>
std::string letters_of(R (* /*function*/)(A...)) {
  return {letter_of<R>(), letter_of<A>()...};
}

}  // namespace

std::string functions_as_text() {
  std::string text = "functions";
#define TORCHY_FUNCTION(name) text += " " #name "=" + letters_of(&torchy_##name);
  TORCHY_FUNCTION(listen)
  TORCHY_FUNCTION(set_planning)
  TORCHY_FUNCTION(renew)
  TORCHY_FUNCTION(set_op)
  TORCHY_FUNCTION(attach)
  TORCHY_FUNCTION(forget)
  TORCHY_FUNCTION(pause)
  TORCHY_FUNCTION(hold_flushes)
  TORCHY_FUNCTION(flushes)
  TORCHY_FUNCTION(begin)
  TORCHY_FUNCTION(leave)
  TORCHY_FUNCTION(finish)
  TORCHY_FUNCTION(put_off)
  TORCHY_FUNCTION(weigh)
  TORCHY_FUNCTION(only_walks)
  TORCHY_FUNCTION(escaped)
#undef TORCHY_FUNCTION
  return text + "\n";
}

}  // namespace torchy

TORCH_LIBRARY(torchy, m) {
  m.def("execute(int session, int serial, int program, int size) -> int", &torchy::execute_program);
  m.def("describe_node(int id) -> Any",
        torch::CppFunction::makeFromBoxedFunction<&torchy::describe_node>());
  m.def("describe_step(int id) -> Any",
        torch::CppFunction::makeFromBoxedFunction<&torchy::describe_step>());
  m.def("ask(int what, int session, int argument, str text) -> int");
}
