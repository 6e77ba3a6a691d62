// Calls one recorded op, as torch itself would have, with real tensors on the memory of its slots.
#pragma once

#include <memory>

#include "trace.h"

namespace torchy {

// Calls an op of one C++ signature, unboxed.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual at::Tensor call(Trace& trace, const Step& step) const = 0;
};

// What calls an op whose signature is one of the frequent ones; null for others.
std::shared_ptr<const Caller> caller_of(const c10::OperatorHandle& op);

// What a thread needs to be below all of torch's dispatch but the backends' kernels.
class CallMode {
 public:
  CallMode() : grad_(c10::GradMode::is_enabled()) {}

 private:
  c10::InferenceMode inference_{false};
  c10::AutoGradMode grad_;
  BelowEverything below_;  // last: the modes set the keys of the thread
};

// Makes room for the memory of a slot, if it has none.
void allocate(Trace& trace, int64_t slot);

// What a slot holds is not needed any more.
void release(Trace& trace, int64_t slot);

// Runs an op of a trace; its results become the memory of their slots. Within a CallMode.
void call(Trace& trace, int64_t op);

}  // namespace torchy
