#include "replay.h"

#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <chrono>

#include "caller.h"

namespace torchy {

namespace {

// The state in which a trace was recorded, for a while.
class StateFor {
 public:
  explicit StateFor(const Trace& trace) : before_(ProcessState::now()) {
    if (trace.precision && *trace.precision != float32_precision())
      precision_.emplace(*trace.precision);
    if (!(before_ == trace.state)) trace.state.apply();
  }
  ~StateFor() {
    if (!(ProcessState::now() == before_)) before_.apply();
  }
  StateFor(const StateFor&) = delete;
  StateFor& operator=(const StateFor&) = delete;

 private:
  ProcessState before_;
  std::optional<PrecisionFor> precision_;
};

}  // namespace

Replay::Replay(const Trace& trace) : before_(trace.before), roots_(registry().roots) {
  trace_.path = trace.path;
  trace_.views = trace.views;
  trace_.words = trace.words;
  trace_.numbers = trace.numbers;
  trace_.state = trace.state;
  trace_.precision = trace.precision;
  for (const Slot& slot : trace.slots) {
    Slot& own = trace_.slots.emplace_back();
    own.bytes = slot.bytes;
    own.last_view = slot.last_view;
    own.created = slot.created;
    own.live = false;  // so that it can be released
  }
  trace_.addresses.resize(trace_.slots.size());
}

void Replay::give(size_t slot, void* memory) {
  Slot& own = trace_.slots.at(slot);
  if (own.created) throw std::invalid_argument("this is made by an op");
  own.memory = c10::DataPtr(memory, c10::Device(c10::kCPU));
  trace_.addresses[slot] = reinterpret_cast<int64_t>(memory);
}

void Replay::give_all() {
  if (!before_) throw std::invalid_argument("the inputs are not kept");
  for (size_t i = 0; i < trace_.slots.size(); ++i) {
    Slot& slot = trace_.slots[i];
    if (slot.created) continue;
    if (const auto& read = before_->read[i]) {
      give(i, read->memory.get());
      continue;
    }
    const auto& copy = before_->copies[i];  // its own: what runs again writes to it
    slot.memory = copy_of(copy.get(), slot.bytes);
    trace_.addresses[i] = reinterpret_cast<int64_t>(slot.memory.get());
  }
}

int64_t Replay::run(size_t op, const std::vector<int64_t>& release) {
  using Clock = std::chrono::steady_clock;
  const Node& node = *trace_.path.at(op);
  for (const Operand& operand : node.step->operands) {
    const auto slot = static_cast<size_t>(operand.slot);
    if (!trace_.addresses[slot] && trace_.slots[slot].bytes > 0)
      throw std::invalid_argument("what the op reads is not there");
  }
  const Paused paused;
  const StateFor state(trace_);
  const CallMode mode;
  const auto begin = Clock::now();
  call(trace_, static_cast<int64_t>(op));
  const std::chrono::nanoseconds took = Clock::now() - begin;
  for (int64_t slot : release) torchy::release(trace_, slot);
  return took.count();
}

void Replay::drop() {
  trace_.shadows.clear();
  for (Slot& slot : trace_.slots) slot.memory.clear();
  std::fill(trace_.addresses.begin(), trace_.addresses.end(), 0);
}

int64_t tiny_call() {
  constexpr int kRounds = 5, kOps = 200;
  using Clock = std::chrono::steady_clock;
  const Paused paused;
  const CallMode mode;
  const at::Tensor x = at::ones({16});
  int64_t best = INT64_MAX;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = Clock::now();
    for (int i = 0; i < kOps; ++i) at::add(x, x);
    const std::chrono::nanoseconds took = Clock::now() - begin;
    best = std::min<int64_t>(best, took.count() / kOps);
  }
  return best;
}

}  // namespace torchy
