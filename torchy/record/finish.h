// The begin and the end of a flush: what is live, under which state it runs, and how the values get
// into the program's storages.
#pragma once

#include "trace.h"

namespace torchy {

// Begins a flush, or joins one. 0: nothing to do. 1: the caller runs it. 2: the caller's thread is
// in the midst of it. 3: another thread is, and the caller, who may hold the GIL, must not wait.
inline int claim_flush(Session& session, bool wait) {
  auto& all = registry();
  std::unique_lock<std::mutex> lock(all.mutex);
  const auto me = std::this_thread::get_id(), nobody = std::thread::id();
  for (;;) {
    if (session.flusher == me) return 2;
    if (!session.running && session.trace->path.empty()) return 0;
    if (session.flusher == nobody && !all.held_up(me)) break;
    if (!wait) return 3;
    all.flushed->wait(lock);
  }
  session.flusher = me;
  if (session.running) return 1;
  if (!session.spare) session.spare = std::make_shared<Trace>();
  session.running = std::exchange(session.trace, std::move(session.spare));
  ++session.flushes;
  session.running->serial = session.flushes;
  ++session.running->path.back()->flushes;
  return 1;
}

// A thread is about to fork: waits until no other one flushes, and lets none begin until it lets
// go. What others were running would never end in the child. Not if it flushes itself: another one
// may wait for that.
inline void hold_flushes() {
  auto& all = registry();
  const auto me = std::this_thread::get_id(), nobody = std::thread::id();
  std::unique_lock<std::mutex> lock(all.mutex);
  if (all.flushes(me)) return;
  all.flushed->wait(lock, [&] { return all.forker == nobody || all.forker == me; });
  all.forker = me;
  all.flushed->wait(lock, [&] {
    return std::all_of(all.sessions.begin(), all.sessions.end(), [&](const auto& session) {
      return session->flusher == nobody || session->flusher == me;
    });
  });
}

inline void let_flushes_go() {
  auto& all = registry();
  std::lock_guard<std::mutex> lock(all.mutex);
  if (all.forker != std::this_thread::get_id()) return;
  all.forker = std::thread::id();
  all.flushed->notify_all();
}

// What the program can still reach now is live. Call with the mutex held.
inline void find_live(Trace& trace, size_t allowance) {
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

inline void restore_state(Session& session) {
  if (session.outer_state) session.outer_state->apply();
  session.outer_state.reset();
  session.precision.reset();
}

// A flush that raised leaves its trace behind, to be resumed by the next.
inline void leave_flush(Session& session) {
  const auto me = std::this_thread::get_id();
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (session.flusher != me) return;  // it was finished nevertheless
  }
  restore_state(session);
  std::lock_guard<std::mutex> lock(registry().mutex);
  session.flusher = std::thread::id();
  registry().flushed->notify_all();
}

inline int begin_flush(Session& session, bool wait) {
  int claimed = claim_flush(session, wait);
  if (claimed != 1) return claimed;
  try {
    Trace& trace = *session.running;
    if (trace.flags.empty()) {
      std::lock_guard<std::mutex> lock(registry().mutex);
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

using Inputs = c10::SmallVector<c10::intrusive_ptr<c10::StorageImpl>, 16>;

// The memory of a trace's slots becomes that of their storages, which nothing pends on any more
// (unless on another trace). `inputs`: a reference to each slot's storage, if it is an input. Call
// with the mutex held.
inline void settle_trace(Trace& trace, const Inputs& inputs) {
  for (size_t i = 0; i < trace.slots.size(); ++i) {
    Slot& slot = trace.slots[i];
    if (slot.tensor) {
      take_bit(*slot.tensor);
      slot.tensor->settled();
    }
    c10::StorageImpl* storage = slot.weak ? inputs[i].get() : slot.storage;
    if (!storage) continue;
    if (!slot.pending()) {
      Kept::give_back(*storage, slot.kept);
    } else if (slot.as_recorded()) {
      storage->set_data_ptr_noswap(std::move(slot.memory));
    }
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

// All values are there: put them into the storages of the program and take the bit off its tensors.
// Returns the nanoseconds that calls took; -1 if somebody else has finished it. `expected`: the
// trace, if that is known.
inline int64_t finish_flush(Session& session, int64_t origin, const Trace* expected = nullptr) {
  std::shared_ptr<Trace> trace;
  std::vector<c10::intrusive_ptr<c10::TensorImpl>> tensors;  // dropped without the mutex, as here
  Inputs inputs;
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    trace = session.running;
  }
  if (!trace || (expected && trace.get() != expected)) return -1;
  restore_state(session);
  for (Slot& slot : trace->slots) inputs.push_back(slot.weak ? slot.weak->lock() : nullptr);
  for (;;) {
    std::vector<WeakTensor> bearers;
    {
      std::lock_guard<std::mutex> lock(registry().mutex);
      if (session.running != trace) return -1;
      bearers.swap(trace->bearers.tensors);
      if (bearers.empty()) {  // else views may have been made meanwhile
        session.running.reset();
        if (trace->held) trace->held->busy = false;
        settle_trace(*trace, inputs);
        for (auto& tensor : tensors) take_bit(*tensor);
        session.origin = origin;
        const auto root = registry().roots.find(origin);
        session.root = root == registry().roots.end() ? nullptr : root->second.get();
        session.flusher = std::thread::id();
        registry().flushed->notify_all();
        return trace->called;
      }
    }
    for (auto& bearer : bearers)
      if (auto tensor = bearer.lock()) tensors.push_back(std::move(tensor));
  }
}

}  // namespace torchy
