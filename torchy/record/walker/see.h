// What becomes of an op that arrives: it is recorded, runs on metadata, or runs now.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include "session.h"

namespace torchy {

using torch::jit::Stack;

// The session that this thread records into, if it does so now.
Session* recording_here();

// Whether ops have been registered that the walker does not see yet; and sees to that. In
// claim.cpp.
bool claims_are_due();
void claim_if_due();

template <typename F>
inline void each_tensor(const c10::IValue& value, const F& f) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) f(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) each_tensor(item, f);
  } else if (value.isTuple()) {
    for (const c10::IValue& item : value.toTupleRef().elements()) each_tensor(item, f);
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) each_tensor(entry.value(), f);
  }
}

c10::StorageImpl* watched_storage(const at::Tensor& tensor);

// Computes what is pending on an op's arguments, and takes stray bits off.
void settle_arguments(const OpInfo& info, const Stack& stack, bool only_written = false);

// An op is about to run by itself: what eager would have let go of by now goes first.
void make_room();

Node* root_of(Session& session);

// An op runs now; tells Python now and then, which may put the session to sleep.
void count_run_now(Session& session);

// How an op is treated: the policy is asked once.
OpClass class_of(OpInfo& info);

// An op that looks at its only tensor, and returns no other: whether it may go the short way, and
// what comes before it runs.
bool is_look(OpInfo& info);
void look(const OpInfo& info, const at::Tensor& tensor);

// A view of a pending tensor is pending with it: an op that computes metadata only simply runs.
// What it has to do with pending tensors, told before and after that.
class OnMetadata {
 public:
  OnMetadata();
  void reads(const at::Tensor& tensor);
  void gave(const at::Tensor& tensor) const;

 private:
  static void mark(c10::TensorImpl& impl);
  bool carrying_, pending_ = false;
};

// An op that arrives.
void see(OpInfo& info, c10::DispatchKeySet keys, Stack* stack);

}  // namespace torchy
