#include "interpret.h"

#include <algorithm>
#include <chrono>

#include "execute.h"
#include "finish.h"

namespace torchy {

namespace {

// What becomes of a running trace if nobody has planned it, as a program of calls.
class Interpretation {
 public:
  Interpretation(const Trace& trace, bool skip_dead)
      : trace_(trace), wanted_(trace.slots.size()), last_(trace.slots.size(), -1) {
    for (size_t i = 0; i < trace.slots.size(); ++i)
      wanted_[i] = trace.slots[i].live && trace.slots[i].pending();
    needed_.resize(trace.path.size(), !skip_dead);
    for (size_t i = trace.path.size(); i-- > 0;) look_at(i);
  }

  std::vector<int64_t> program() const {
    std::vector<int64_t> words;
    for (size_t i = 0; i < trace_.path.size(); ++i) {
      if (!needed_[i]) continue;
      const size_t begin = words.size();
      words.insert(words.end(), {0, static_cast<int64_t>(i), /*kernel*/ 0, /*to allocate*/ 0, 0});
      const size_t count = words.size() - 1;
      each_slot(i, [&](size_t slot, bool /*written*/) {
        if (last_[slot] != static_cast<int64_t>(i) || trace_.slots[slot].live) return;
        if (std::find(words.begin() + static_cast<ptrdiff_t>(count) + 1, words.end(),
                      static_cast<int64_t>(slot)) != words.end())
          return;
        words.push_back(static_cast<int64_t>(slot));
        ++words[count];
      });
      words[begin] = static_cast<int64_t>(words.size() - begin);
    }
    return words;
  }

  // What eager moves through memory, beyond its caches, for the ops that a plan could fuse; bytes.
  static size_t fusable_traffic(const Trace& trace) {
    constexpr size_t kBeyondCaches = size_t{2} << 20;
    size_t bytes = 0;
    for (const Node* node : trace.path) {
      if (!node->step->info->fusable) continue;
      auto add = [&](int index) {
        const View& view = trace.views[static_cast<size_t>(index)];
        const size_t size = static_cast<size_t>(c10::multiply_integers(
                                c10::IntArrayRef(&trace.words[view.at] + 1, view.rank))) *
                            c10::elementSize(view.dtype);
        if (size >= kBeyondCaches) bytes += size;
      };
      for (const Operand& operand : node->step->operands) add(operand.view);
      for (int view : node->result_views)
        if (view >= 0) add(view);
    }
    return bytes;
  }

 private:
  template <typename F>
  void each_slot(size_t op, const F& f) const {
    const Node& node = *trace_.path[op];
    for (const Operand& operand : node.step->operands)
      f(static_cast<size_t>(operand.slot), operand.written);
    for (int slot : node.result_slots)
      if (slot >= 0) f(static_cast<size_t>(slot), true);
  }

  // From the last op to the first: it is needed if it writes what is wanted, and then all that it
  // touches is wanted from there on. A write to an input that the program can reach is seen.
  void look_at(size_t op) {
    bool writes = false;
    each_slot(op, [&](size_t slot, bool written) {
      if (!written) return;
      writes = true;
      const Slot& known = trace_.slots[slot];
      if (wanted_[slot] || (!known.created && known.live)) needed_[op] = true;
    });
    if (!writes) needed_[op] = true;  // it is there for its effect
    if (!needed_[op]) return;
    each_slot(op, [&](size_t slot, bool /*written*/) {
      wanted_[slot] = true;
      if (last_[slot] < 0) last_[slot] = static_cast<int64_t>(op);
    });
  }

  const Trace& trace_;
  std::vector<bool> wanted_, needed_;
  std::vector<int64_t> last_;  // op that touches a slot
};

// Whether so much has gone into interpreting at a place that a plan is worth its price.
bool is_worth_planning(const Node& node, size_t ops) {
  const double seconds = 1e-9 * static_cast<double>(node.spent);
  return node.flushes > 1 && seconds >= planning_seconds * static_cast<double>(ops);
}

// Whether a flush that no script runs need not be planned, and there is so little to move that
// compiling cannot pay at once.
bool is_interpreted(const Session::Settings& settings, const Trace& trace) {
  constexpr size_t kWorthAsking = 400'000'000;  // as many take eager as long as compiling a kernel
  return settings.interprets && !settings.watched && !trace.hunts && !trace.seen && trace.at == 0 &&
         trace.script == kNoScript && !is_worth_planning(*trace.path.back(), trace.path.size()) &&
         !(trace.flags[0] & kHeavy) && Interpretation::fusable_traffic(trace) < kWorthAsking;
}

// What each op of an interpreted trace took; 0 where it was left out.
std::vector<int64_t> times_by_op(const Trace& trace) {
  std::vector<int64_t> times(trace.path.size());
  size_t step = 0;
  for (size_t at = 0; at < trace.own.size(); at += static_cast<size_t>(trace.own[at]))
    times[static_cast<size_t>(trace.own[at + 1])] = trace.times[step++];
  return times;
}

// Of the time that a flush took what a plan could spare: the ops that it may fuse, and what it
// takes to interpret.
int64_t spared(const Trace& trace, c10::IntArrayRef times) {
  constexpr int64_t kInterpreting = 300;  // nanoseconds an op
  int64_t spared = 0;
  for (size_t i = 0; i < times.size(); ++i)
    spared += kInterpreting + (trace.path[i]->step->info->fusable ? times[i] : 0);
  return spared;
}

// What the report needs to know of a trace that has been interpreted, while its places are there.
Flushed note_of(const Trace& trace, c10::IntArrayRef times, Reason reason, const std::string& text,
                int64_t line, int64_t variant) {
  auto unplanned = std::make_shared<Unplanned>();
  for (const Node* node : trace.path) unplanned->path.push_back(node->id);
  unplanned->flags = trace.flags;
  unplanned->reason = static_cast<int64_t>(reason);
  unplanned->text = text;
  unplanned->line = line;
  unplanned->variant = variant;
  Flushed flushed;
  flushed.words = std::make_shared<const std::vector<int64_t>>(trace.words);
  flushed.numbers = trace.numbers.size();
  flushed.numbers_and_times = trace.numbers;
  flushed.numbers_and_times.insert(flushed.numbers_and_times.end(), times.begin(), times.end());
  flushed.held = sizeof(Flushed) + sizeof(Unplanned) + trace.flags.size() +
                 sizeof(int64_t) * (trace.words.size() + flushed.numbers_and_times.size() +
                                    unplanned->path.size());
  flushed.unplanned = std::move(unplanned);
  flushed.epoch = registry().epoch;
  return flushed;
}

// Runs such a flush. `pause` as for repeat().
Repeated interpret(Session& session, const std::shared_ptr<Trace>& trace, Reason reason,
                   const std::string& text, const Session::Settings& settings, Pause pause) {
  const auto begin = std::chrono::steady_clock::now();
  if (trace->own.empty()) trace->own = Interpretation(*trace, settings.skip_dead).program();
  trace->script = kInterpreted;
  for (;;) {
    Progress progress;
    try {
      progress = execute(*trace, trace->own.data(), static_cast<int64_t>(trace->own.size()));
    } catch (const std::exception&) {
      return Repeated::kNo;  // Python tries that op again, and names it
    }
    if (progress == Progress::kDone) break;
    if (!pause(session)) return Repeated::kNo;
    const Lock lock(shared_mutex);
    if (session.running != trace) return Repeated::kYes;  // finished by what ran meanwhile
  }
  const bool met_before = trace->path.back()->flushes > 1;
  const auto [line, origin] = where_here();
  const auto times = times_by_op(*trace);
  trace->path.back()->spent += spared(*trace, times);
  Flushed flushed = note_of(*trace, times, reason, text, line, settings.variant);
  if (finish_flush(session, origin, trace.get()) < 0) return Repeated::kYes;
  flushed.began = nanoseconds_of(begin);
  flushed.nanoseconds = std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin).count();
  bool many = false;
  {
    const Lock lock(shared_mutex);
    session.log.add(std::move(flushed));
    session.balance.pass(session.counters.run_now);
    ++session.counters.interpreted;
    if (met_before) ++session.settling;
    many = registry().steps.size() > registry().most_places;
  }
  return many ? Repeated::kMindPlaces : Repeated::kYes;
}

// Runs a flush that has begun without Python, if there is nothing that it has to see.
Repeated run_alone(Session& session, const std::shared_ptr<Trace>& trace, Reason reason,
                   const std::string& text, Pause pause) {
  const auto repeated = repeat(session, trace, reason, text, pause);
  if (repeated != Repeated::kNo) return repeated;
  Session::Settings settings;
  {
    const Lock lock(shared_mutex);
    if (session.running != trace) return Repeated::kYes;  // finished by what ran meanwhile
    settings = session.settings;
  }
  if (!is_interpreted(settings, *trace)) return repeated;
  return interpret(session, trace, reason, text, settings, pause);
}

}  // namespace

void flush(Session& session, Reason reason, const std::string& text) {
  if (reason == Reason::kLength || reason == Reason::kBytes) session.drifts = true;
  Paused paused;
  auto [claimed, trace] = begin_flush(session, /*wait=*/false);
  if (claimed == Claim::kNothing) return;
  const auto hear_signals = [](Session& session) {
    ask(Ask::kPause, session.id, 0);
    return true;
  };
  auto done = Repeated::kNo;
  try {
    if (claimed == Claim::kOurs) done = run_alone(session, trace, reason, text, hear_signals);
    if (done == Repeated::kNo) ask(Ask::kFlush, session.id, static_cast<int64_t>(reason), text);
    registry().give_back(std::move(trace));
    if (done == Repeated::kMindPace) ask(Ask::kPace, session.id, 1);
    if (done == Repeated::kMindPlaces) ask(Ask::kPlaces, session.id, 0);
  } catch (...) {
    if (claimed == Claim::kOurs) leave_flush(session);
    throw;
  }
}

Repeated flush_for_python(Session& session, const std::string& text) {
  Paused paused;
  auto [claimed, trace] = begin_flush(session, /*wait=*/false);
  if (claimed == Claim::kNothing) return Repeated::kYes;
  if (claimed != Claim::kOurs) return Repeated::kNo;
  auto done = Repeated::kNo;
  try {
    done = run_alone(session, trace, Reason::kCalled, text, [](Session&) { return false; });
  } catch (...) {
    leave_flush(session);
    throw;
  }
  if (done == Repeated::kNo) leave_flush(session);
  registry().give_back(std::move(trace));
  return done;
}

}  // namespace torchy
