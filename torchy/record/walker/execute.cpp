#include "execute.h"

#include <algorithm>
#include <chrono>

#include "births.h"
#include "caller.h"
#include "finish.h"
#include "pack.h"

namespace torchy {

namespace {

// The script that a running flush is to be run by; null if Python has to see it, or to go on with
// it.
std::shared_ptr<Script> find_script(const Session& session, Trace& trace, Reason reason,
                                    const std::string& text) {
  const Lock lock(shared_mutex);
  if (trace.at != 0 || trace.seen || session.settings.watched) return nullptr;
  for (auto& known : trace.path.back()->scripts) {
    if (known->busy || known->variant != session.settings.variant || known->flags != trace.flags ||
        known->reason != static_cast<int64_t>(reason) || known->text != text)
      continue;
    known->busy = true;  // until the flush is finished, by whomever
    trace.held = known;
    trace.script = known->id;
    return known;
  }
  return nullptr;
}

// Whether kernels have refused a few times in a row: then Python is to see the next flush here, and
// to plan for layouts as they come now.
void mind_refusals(const Trace& trace, Script& script) {
  constexpr int kMost = 3;
  script.refusals = trace.refused ? script.refusals + 1 : 0;
  if (script.refusals < kMost) return;
  const Lock lock(shared_mutex);
  Node& node = *trace.path.back();
  const auto same = [&](const auto& known) { return known.get() == &script; };
  node.scripts.erase(std::remove_if(node.scripts.begin(), node.scripts.end(), same),
                     node.scripts.end());
  ++node.refusals;
}

// Bytes that the fused ops of a trace read and write if they run one by one.
int64_t bytes_moved(const Trace& trace, const Script& script) {
  int64_t bytes = 0;
  for (int64_t index : script.moved) {
    const View& view = trace.views[static_cast<size_t>(index)];
    bytes += c10::multiply_integers(c10::IntArrayRef(&trace.words[view.at] + 1, view.rank)) *
             static_cast<int64_t>(c10::elementSize(view.dtype));
  }
  return bytes;
}

// Notes a flush that a script has run; true if Python should mind the session's pace. Call once it
// is finished.
bool note_repeat(Session& session, Trace& trace, const std::shared_ptr<Script>& script,
                 int64_t epoch, int64_t began, int64_t nanoseconds) TORCHY_REQUIRES(shared_mutex) {
  Flushed flushed;
  flushed.script = script;
  flushed.began = began;
  flushed.nanoseconds = nanoseconds;
  if (!trace.refused)  // else who knows
    for (int64_t slot : script->unstored)
      flushed.saved += static_cast<int64_t>(trace.slots[static_cast<size_t>(slot)].bytes);
  if (!script->words || *script->words != trace.words) {
    script->bytes_moved = bytes_moved(trace, *script);
    script->words = std::make_shared<const std::vector<int64_t>>(trace.words);
    flushed.held += script->words->size() * sizeof(int64_t);
  }
  flushed.words = script->words;
  flushed.numbers = trace.numbers.size();
  flushed.numbers_and_times.reserve(trace.numbers.size() + trace.times.size());
  for (const auto* list : {&trace.numbers, &trace.times})
    flushed.numbers_and_times.insert(flushed.numbers_and_times.end(), list->begin(), list->end());
  flushed.held += sizeof(Flushed) + sizeof(int64_t) * flushed.numbers_and_times.size();
  flushed.epoch = epoch;
  session.log.add(std::move(flushed));
  ++session.counters.repeated;
  const double seconds = 1e-9 * static_cast<double>(nanoseconds - trace.called);
  session.balance.add({script->ops, trace.calls, script->bytes_moved, seconds},
                      session.counters.run_now);
  return session.balance.loses() && !session.pays();
}

}  // namespace

Progress execute(Trace& trace, const int64_t* program, int64_t size) {
  using Clock = std::chrono::steady_clock;
  auto now = Clock::now();
  const auto until = now + std::chrono::milliseconds(20);
  TORCH_INTERNAL_ASSERT(trace.at == 0 || trace.program == program,
                        "torchy: a flush goes on with another program");
  trace.program = program;
  Paused paused;
  const CallMode mode;
  while (trace.at < size) {
    if (now > until) return Progress::kPause;
    Cursor cursor{program + trace.at};
    const int64_t words = cursor.next(), op = cursor.next(), kernel = cursor.next();
    const auto to_allocate = cursor.list(), to_release = cursor.list();
    const int64_t otherwise = kernel ? cursor.next() : 0;
    if (kernel) {
      const Refusal refusal = prepare(trace, cursor);
      if (refusal != Refusal::kFits) {  // its ops are called: the steps that follow
        trace.times.push_back(-static_cast<int64_t>(refusal));
        trace.refused = true;
        trace.at += words;
        continue;
      }
    }
    for (int64_t slot : to_allocate) allocate(trace, slot);
    if (!kernel) {
      const Hunt hunt(trace, op);
      call(trace, op);
      hunt.look(trace);
    } else {
      launch(trace, cursor, kernel);
    }
    for (int64_t slot : to_release) release(trace, slot);
    trace.at += words + otherwise;
    const auto after = Clock::now();
    trace.times.push_back(std::chrono::nanoseconds(after - now).count());
    if (!kernel) {
      trace.called += trace.times.back();
      ++trace.calls;
    }
    now = after;
  }
  return Progress::kDone;
}

int64_t execute_program(int64_t session_id, int64_t serial, int64_t program, int64_t size) {
  std::shared_ptr<Trace> trace;
  {
    const Lock lock(shared_mutex);
    if (auto session = registry().find(session_id)) trace = session->running;
  }
  // finished from within; and what came after it there, perhaps, has been left
  if (!trace || trace->serial != serial) return static_cast<int64_t>(Progress::kDone);
  return static_cast<int64_t>(execute(*trace, reinterpret_cast<const int64_t*>(program), size));
}

Repeated repeat(Session& session, const std::shared_ptr<Trace>& trace, Reason reason,
                const std::string& text, Pause pause) {
  const auto begin = std::chrono::steady_clock::now();
  const std::shared_ptr<Script> script = find_script(session, *trace, reason, text);
  if (!script) return Repeated::kNo;
  try {
    if (!script->checks.empty()) {
      const Lock lock(shared_mutex);  // the program may drop tensors of it meanwhile
      add_checks(*trace, script->checks);
    }
    if (trace->hunts) keep_inputs(*trace);
  } catch (const std::exception&) {
    return Repeated::kNo;  // Python tries again, and raises
  }
  for (;;) {
    Progress progress;
    try {
      progress = execute(*trace, script->program, script->size);
    } catch (const std::exception&) {
      return Repeated::kNo;  // Python tries that step again, and names the op
    }
    if (progress == Progress::kDone) break;
    if (!pause(session)) return Repeated::kNo;
    const Lock lock(shared_mutex);
    if (session.running != trace) return Repeated::kYes;  // finished by what ran meanwhile
  }
  if (trace->hunts && is_suspect(*trace, script->alarms))
    return Repeated::kNo;  // Python looks where
  trace->before.reset();
  mind_refusals(*trace, *script);
  const int64_t epoch = registry().epoch;  // places may be forgotten once the flush is finished
  if (finish_flush(session, script->origin, trace.get()) < 0) return Repeated::kYes;
  const std::chrono::nanoseconds passed = std::chrono::steady_clock::now() - begin;
  bool lost = false;
  {
    const Lock lock(shared_mutex);
    lost = note_repeat(session, *trace, script, epoch, nanoseconds_of(begin), passed.count());
  }
  return lost ? Repeated::kMindPace : Repeated::kYes;
}

}  // namespace torchy
