#include "finish.h"

#include <algorithm>
#include <utility>

namespace torchy {

namespace {

std::pair<Claim, std::shared_ptr<Trace>> claim_flush(Session& session, bool wait) {
  auto& all = registry();
  UniqueLock lock(shared_mutex);
  const auto me = std::this_thread::get_id(), nobody = std::thread::id();
  for (;;) {
    if (session.flusher == me) return {Claim::kWithin, nullptr};
    if (!session.running && (!session.trace || session.trace->path.empty()))
      return {Claim::kNothing, nullptr};
    if (session.flusher == nobody && !all.held_up(me)) break;
    if (!wait) return {Claim::kOthers, nullptr};
    lock.wait(*all.flushed);
  }
  session.flusher = me;
  if (!session.running) {
    session.running = std::exchange(session.trace, all.empty_trace());
    ++session.counters.flushes;
    session.running->serial = session.counters.flushes;
    session.running->hunts = session.hunts;
    ++session.running->path.back()->flushes;
  }
  return {Claim::kOurs, session.running};
}

// What the program can still reach now is live.
void find_live(Trace& trace, size_t allowance) TORCHY_REQUIRES(shared_mutex) {
  size_t needed = 0, eager = 0;
  trace.weigh(needed, eager);
  const bool heavy = needed > std::max(trace.peak, eager) + allowance;
  trace.addresses.reserve(trace.slots.size());  // all or nothing
  trace.flags.reserve(trace.slots.size());
  for (Slot& slot : trace.slots) {
    slot.live = slot.reachable();
    trace.addresses.push_back(reinterpret_cast<int64_t>(slot.address()));
    trace.flags.push_back((slot.created ? kCreated : 0) | (slot.written ? kWritten : 0) |
                          (slot.live ? kLive : 0));
  }
  if (heavy && !trace.flags.empty()) trace.flags[0] |= kHeavy;
}

bool others_flush(const Registry& all, std::thread::id me) TORCHY_REQUIRES(shared_mutex) {
  for (const auto& session : all.sessions)
    if (session->flusher != std::thread::id() && session->flusher != me) return true;
  return false;
}

void restore_state(Session& session) {
  if (session.outer_state) session.outer_state->apply();
  session.outer_state.reset();
  session.precision.reset();
}

using Inputs = c10::SmallVector<c10::intrusive_ptr<c10::StorageImpl>, 16>;

// The memory of a trace's slots becomes that of their storages, which nothing pends on any more
// (unless on another trace). `inputs`: a reference to each slot's storage, if it is an input.
void settle_trace(Trace& trace, const Inputs& inputs) TORCHY_REQUIRES(shared_mutex) {
  for (size_t i = 0; i < trace.slots.size(); ++i) {
    Slot& slot = trace.slots[i];
    c10::StorageImpl* storage = slot.weak ? inputs[i].get() : slot.storage;
    if (storage && !slot.pending()) {
      Kept::give_back(*storage, slot.kept);
    } else if (storage && slot.as_recorded()) {
      storage->set_data_ptr_noswap(std::move(slot.memory));
    }
    if (slot.tensor) {  // after its memory: a thread that finds no bit reads it at once
      take_bit(*slot.tensor);
      slot.tensor->settled();
    }
    if (!storage) continue;
    bool pending = false;
    if (slot.created) {
      storage->clear_materializer();
      // last: whoever drops it now frees it at once
      static_cast<PendingStorage*>(storage)->settled();
    } else if (storage->has_materializer() && holders(storage, &pending).empty()) {
      storage->clear_materializer();
    }
  }
}

}  // namespace

void hold_flushes() {
  auto& all = registry();
  const auto me = std::this_thread::get_id(), nobody = std::thread::id();
  UniqueLock lock(shared_mutex);
  if (all.flushes(me)) return;
  while (all.forker != nobody && all.forker != me) lock.wait(*all.flushed);
  all.forker = me;
  while (others_flush(all, me)) lock.wait(*all.flushed);
}

void let_flushes_go() {
  auto& all = registry();
  const Lock lock(shared_mutex);
  if (all.forker != std::this_thread::get_id()) return;
  all.forker = std::thread::id();
  all.flushed->notify_all();
}

void leave_flush(Session& session) {
  const auto me = std::this_thread::get_id();
  {
    const Lock lock(shared_mutex);
    if (session.flusher != me) return;  // it was finished nevertheless
  }
  restore_state(session);
  const Lock lock(shared_mutex);
  session.flusher = std::thread::id();
  registry().flushed->notify_all();
}

std::pair<Claim, std::shared_ptr<Trace>> begin_flush(Session& session, bool wait) {
  const auto claimed = claim_flush(session, wait);
  if (claimed.first != Claim::kOurs) return claimed;
  try {
    Trace& trace = *claimed.second;
    if (trace.flags.empty()) {
      const Lock lock(shared_mutex);
      find_live(trace, session.allowance(trace));
    }
    const auto now = ProcessState::now();
    if (!(now == trace.state)) {
      session.outer_state = now;
      trace.state.apply();
    }
    if (trace.precision && *trace.precision != float32_precision())
      session.precision.emplace(*trace.precision);
  } catch (...) {
    leave_flush(session);
    throw;
  }
  return claimed;
}

int64_t finish_flush(Session& session, int64_t origin, const Trace* expected) {
  std::shared_ptr<Trace> trace;
  c10::SmallVector<c10::intrusive_ptr<c10::TensorImpl>, 16> tensors;  // dropped without the mutex
  Inputs inputs;
  {
    const Lock lock(shared_mutex);
    trace = session.running;
  }
  if (!trace || (expected && trace.get() != expected)) return -1;
  restore_state(session);
  for (Slot& slot : trace->slots) inputs.push_back(slot.weak ? slot.weak->lock() : nullptr);
  for (;;) {
    auto& bearers = trace->bearers.taken;
    {
      const Lock lock(shared_mutex);
      if (session.running != trace) return -1;
      bearers.swap(trace->bearers.tensors);
      if (bearers.empty()) {  // else views may have been made meanwhile
        session.running.reset();
        if (trace->held) trace->held->busy = false;
        settle_trace(*trace, inputs);
        for (auto& tensor : tensors) take_bit(*tensor);
        session.origin = origin;
        const auto& roots = *registry().roots;
        const auto root = roots.find(origin);
        session.root = root == roots.end() ? nullptr : root->second.get();
        session.flusher = std::thread::id();
        registry().flushed->notify_all();
        return trace->called;
      }
    }
    for (auto& bearer : bearers)
      if (auto tensor = bearer.lock()) tensors.push_back(std::move(tensor));
    bearers.clear();
  }
}

}  // namespace torchy
