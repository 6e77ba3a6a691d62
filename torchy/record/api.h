// What Python calls: plain functions through ctypes (which gives up the GIL meanwhile), and two
// torch ops where an exception of torch must reach Python as what it is.
#pragma once

#include <torch/library.h>

#include <sstream>

#include "execute.h"

namespace torchy {

void claim_ops();  // in walker.cpp

inline std::shared_ptr<Session> session_of(int64_t id) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  return registry().find(id);
}

inline void quote(std::ostream& out, const std::string& text) {
  out << '"';
  for (char c : text) {
    if (c == '"' || c == '\\') out << '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out << ' ';
    } else {
      out << c;
    }
  }
  out << '"';
}

inline void describe(std::ostream& out, const c10::IValue& value) {
  if (value.isNone() || value.isTensor())
    out << "null";
  else if (value.isBool())
    out << (value.toBool() ? "true" : "false");
  else if (value.isInt())
    out << value.toInt();
  else if (value.isDouble()) {
    out << "{\"bits\":" << std::to_string([&] {
      int64_t bits = 0;
      double number = value.toDouble();
      std::memcpy(&bits, &number, sizeof bits);
      return bits;
    }()) << "}";
  } else if (value.isString())
    quote(out, value.toStringRef());
  else if (value.isList()) {
    out << "{\"list\":[";
    bool first = true;
    for (const c10::IValue& item : value.toListRef()) {
      if (!first) out << ",";
      first = false;
      describe(out, item);
    }
    out << "]}";
  } else
    out << "{\"text\":\"?\"}";
}

inline void describe(std::ostream& out, const Step& step, const Argument& argument) {
  switch (argument.kind) {
    case Argument::kView:
      out << "{\"operand\":" << argument.index << "}";
      break;
    case Argument::kList:
      out << "{\"items\":[";
      for (size_t i = 0; i < argument.items.size(); ++i) {
        if (i) out << ",";
        describe(out, step, argument.items[i]);
      }
      out << "]}";
      break;
    case Argument::kNumber:
      out << "{\"number\":" << argument.index << ",\"kind\":\"" << argument.number << "\"}";
      break;
    case Argument::kConstant:
      out << "{\"constant\":";
      describe(out, argument.constant);
      out << "}";
      break;
  }
}

inline void list(std::ostream& out, const char* name, const std::vector<int>& items) {
  out << ",\"" << name << "\":[";
  for (size_t i = 0; i < items.size(); ++i) out << (i ? "," : "") << items[i];
  out << "]";
}

// JSON, for the cold path: an op at a place, with its pattern if the node is known.
inline std::string describe(const Step& step, const Node* node) {
  std::ostringstream out;
  const OpInfo& info = *step.info;
  out << "{\"step\":" << step.id << ",\"name\":";
  quote(out, c10::toString(info.op.operator_name()));
  out << ",\"pointwise\":" << (info.pointwise ? "true" : "false") << ",\"arguments\":[";
  for (size_t i = 0; i < step.arguments.size(); ++i) {
    if (i) out << ",";
    describe(out, step, step.arguments[i]);
  }
  out << "]";
  std::vector<int> dtypes, written;
  for (auto dtype : step.operand_dtypes) dtypes.push_back(static_cast<int>(dtype));
  for (size_t i = 0; i < step.arguments.size(); ++i)
    if ((info.writes | info.hidden_writes) >> i & 1) written.push_back(static_cast<int>(i));
  list(out, "views", step.operand_views);
  list(out, "slots", step.operand_slots);
  list(out, "dtypes", dtypes);
  list(out, "ranks", step.operand_ranks);
  list(out, "written", written);
  if (node) {
    list(out, "pattern", std::vector<int>(node->pattern.begin(), node->pattern.end()));
    list(out, "result_views", node->result_views);
    list(out, "result_slots", node->result_slots);
  }
  out << "}";
  return out.str();
}

}  // namespace torchy

extern "C" {

using torchy::registry;

inline thread_local std::string torchy_text;

// From now on there is a Python kernel for torchy::ask.
__attribute__((visibility("default"))) void torchy_listen() { torchy::listening() = true; }

__attribute__((visibility("default"))) void torchy_claim() { torchy::claim_ops(); }

__attribute__((visibility("default"))) void torchy_set_op(int64_t id, int64_t op_class,
                                                          int64_t pointwise, int64_t rule,
                                                          uint64_t runtime, uint64_t hidden) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& info = *registry().ops[id];
  info.pointwise = pointwise != 0;
  info.rule = static_cast<torchy::LayoutRule>(rule);
  info.runtime_numbers = runtime;
  info.hidden_writes = hidden;
  bool possible = info.fresh_tensors && info.results > 0 && info.arguments <= 64;
  auto wanted = static_cast<torchy::OpClass>(op_class);
  info.op_class =
      wanted == torchy::OpClass::kDefer && !possible ? torchy::OpClass::kRunNow : wanted;
}

__attribute__((visibility("default"))) void torchy_open(int64_t id, int64_t mode, int64_t max_ops,
                                                        int64_t slack) {
  auto session = std::make_shared<torchy::Session>();
  session->id = id;
  session->mode = static_cast<torchy::SessionMode>(mode);
  session->max_ops = static_cast<size_t>(max_ops);
  session->slack_bytes = static_cast<size_t>(slack);
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    registry().sessions.push_back(session);
  }
}

// The session that this thread records into from now on; -1: none.
__attribute__((visibility("default"))) void torchy_attach(int64_t id) {
  torchy::this_session = id < 0 ? nullptr : torchy::session_of(id);
  torchy::set_thread_bit(torchy::this_session != nullptr);
}

__attribute__((visibility("default"))) void torchy_close(int64_t id) {
  std::shared_ptr<torchy::Session> dropped;
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& sessions = registry().sessions;
  for (auto it = sessions.begin(); it != sessions.end(); ++it) {
    if ((*it)->id != id) continue;
    dropped = *it;
    sessions.erase(it);
    break;
  }
}

// Forgets all places, if no trace stands on one; 0 if one does.
__attribute__((visibility("default"))) int64_t torchy_forget() {
  auto& all = registry();
  std::lock_guard<std::mutex> lock(all.mutex);
  for (const auto& session : all.sessions)
    if (!session->trace.path.empty() || session->running) return 0;
  all.roots.clear();
  all.nodes.clear();
  all.steps.clear();
  all.signatures.clear();
  ++all.epoch;
  return 1;
}

// Nested: while paused (1), this thread's ops are run, not recorded. 0 ends the last pause, -1 all:
// an interrupt may have come between a pause and its end.
__attribute__((visibility("default"))) void torchy_pause(int64_t on) {
  static thread_local std::vector<std::unique_ptr<torchy::Paused>> pauses;
  if (on > 0) {
    pauses.push_back(std::make_unique<torchy::Paused>());
  } else if (!pauses.empty()) {
    pauses.pop_back();
  }
  while (on < 0 && !pauses.empty()) pauses.pop_back();
}

__attribute__((visibility("default"))) int64_t torchy_begin(int64_t id) {
  auto session = torchy::session_of(id);
  return session ? torchy::begin_flush(*session, /*wait=*/true) : 0;
}

__attribute__((visibility("default"))) void torchy_leave(int64_t id) {
  if (auto session = torchy::session_of(id)) torchy::leave_flush(*session);
}

__attribute__((visibility("default"))) int64_t torchy_finish(int64_t id, int64_t origin) {
  auto session = torchy::session_of(id);
  return session ? torchy::finish_flush(*session, origin) : 0;
}

// The running trace: counts and addresses of its arrays (ids of nodes, words, numbers, slot flags),
// and the script that is being run.
__attribute__((visibility("default"))) void torchy_running(int64_t id, int64_t* out) {
  auto session = torchy::session_of(id);
  auto& trace = *session->running;
  trace.seen = true;
  const int64_t values[] = {static_cast<int64_t>(trace.ids.size()),
                            reinterpret_cast<int64_t>(trace.ids.data()),
                            static_cast<int64_t>(trace.words.size()),
                            reinterpret_cast<int64_t>(trace.words.data()),
                            static_cast<int64_t>(trace.numbers.size()),
                            reinterpret_cast<int64_t>(trace.numbers.data()),
                            static_cast<int64_t>(trace.slots.size()),
                            reinterpret_cast<int64_t>(trace.flags.data()),
                            trace.script};
  std::copy(std::begin(values), std::end(values), out);
}

// Where in its program the running trace stands; -1 if none is running.
__attribute__((visibility("default"))) int64_t torchy_position(int64_t id) {
  auto session = torchy::session_of(id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  return session && session->running ? session->running->at : -1;
}

// From now on, flushes like the one that is running, for a reason and a text, are run by the
// walker. 0: there are too many already, or it is known.
__attribute__((visibility("default"))) int64_t torchy_remember(int64_t session_id, int64_t reason,
                                                               const char* text,
                                                               const int64_t* program, int64_t size,
                                                               int64_t id, int64_t origin) {
  auto session = torchy::session_of(session_id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& trace = *session->running;
  auto& scripts = trace.path.back()->scripts;
  constexpr size_t kScripts = 16;
  if (scripts.size() >= kScripts) return 0;
  auto script = std::make_shared<torchy::Script>();
  *script = {id, session->variant, reason, text, trace.flags, program, size, origin};
  for (auto& known : scripts)
    if (known->matches(*script)) return 0;
  scripts.push_back(std::move(script));
  return 1;
}

__attribute__((visibility("default"))) void torchy_tune(int64_t id, int64_t variant) {
  if (auto session = torchy::session_of(id)) session->variant = variant;
}

// Takes a session's oldest flush that Python has not seen: script, nanoseconds in all and in calls,
// address and count of its words and its numbers. Null if there is none; else to be freed.
__attribute__((visibility("default"))) torchy::Flushed* torchy_take_record(int64_t id,
                                                                           int64_t* out) {
  auto session = torchy::session_of(id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  if (!session || session->log.empty()) return nullptr;
  auto record = std::make_unique<torchy::Flushed>(std::move(session->log.front()));
  session->log.pop_front();
  const int64_t values[] = {record->script,
                            record->nanoseconds,
                            record->called,
                            reinterpret_cast<int64_t>(record->words.data()),
                            static_cast<int64_t>(record->words.size()),
                            reinterpret_cast<int64_t>(record->numbers.data()),
                            static_cast<int64_t>(record->numbers.size())};
  std::copy(std::begin(values), std::end(values), out);
  return record.release();
}

__attribute__((visibility("default"))) void torchy_free_record(torchy::Flushed* record) {
  std::unique_ptr<torchy::Flushed> freed(record);
}

__attribute__((visibility("default"))) const char* torchy_describe_node(int64_t id) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto* node = registry().nodes[id];
  torchy_text = node->step ? torchy::describe(*node->step, node) : "{}";
  return torchy_text.c_str();
}

__attribute__((visibility("default"))) const char* torchy_describe_step(int64_t id) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  torchy_text = torchy::describe(*registry().steps[id], nullptr);
  return torchy_text.c_str();
}

// The sessions that must flush before a storage is read (or, with `written`, written): their ids,
// and how many.
__attribute__((visibility("default"))) int64_t torchy_owing(c10::StorageImpl* storage,
                                                            int64_t written, int64_t* out,
                                                            int64_t room) {
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
__attribute__((visibility("default"))) c10::StorageImpl* torchy_storage(c10::TensorImpl* tensor) {
  return tensor->has_storage() ? tensor->unsafe_storage().unsafeGetStorageImpl() : nullptr;
}

__attribute__((visibility("default"))) int64_t torchy_is_pending(c10::TensorImpl* tensor) {
  auto* storage = torchy_storage(tensor);
  if (!storage) return 0;
  std::lock_guard<std::mutex> lock(registry().mutex);
  bool pending = false;
  torchy::holders(storage, &pending);
  return pending;
}

__attribute__((visibility("default"))) int64_t torchy_has_bit(c10::TensorImpl* tensor) {
  return torchy::carries_bit(*tensor);
}

__attribute__((visibility("default"))) void torchy_take_bit(c10::TensorImpl* tensor) {
  torchy::take_bit(*tensor);
}

// From now on, ops on this storage run at once: something outside torch can see its memory.
__attribute__((visibility("default"))) void torchy_escaped(c10::StorageImpl* storage) {
  torchy::note_escape(storage);
}

__attribute__((visibility("default"))) void torchy_counters(int64_t id, int64_t* out) {
  auto session = torchy::session_of(id);
  if (!session) return;
  const int64_t values[] = {session->recorded, session->run_now,      session->places,
                            session->layouts,  session->policy_calls, session->flushes,
                            session->views,    session->repeated};
  std::copy(std::begin(values), std::end(values), out);
}

__attribute__((visibility("default"))) int64_t torchy_recorded_ops(int64_t id) {
  auto session = torchy::session_of(id);
  std::lock_guard<std::mutex> lock(registry().mutex);
  return session ? static_cast<int64_t>(session->trace.path.size()) : 0;
}

}  // extern "C"

TORCH_LIBRARY(torchy, m) {
  m.def("execute(int session, int program, int size) -> int", &torchy::execute_program);
  m.def("ask(int what, int session, int argument, str text) -> int");
}
