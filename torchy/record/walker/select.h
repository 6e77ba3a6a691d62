// What has to be seen before a backend is chosen, at the key BackendSelect: factories, which have
// no tensor that could carry the bit, and ops whose oneDNN kernels take plain tensors beside their
// own.
//
// These are called in all of the process, with or without a session: those that are called often
// take their arguments as they are.
#pragma once

#include "kernels.h"
#include "see.h"

namespace torchy {

// Whether an op's kernel there is torch's own: what a program has put in its place goes on as it
// is.
bool selects_as_torch(const c10::OperatorHandle& op);

// The ops inside a factory's kernel are not the program's, so they are not recorded.
void run_factory(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// oneDNN's key goes before the bit: what its kernels take beside tensors of their own is seen on
// the way to them, at the one key that each call passes, without autograd and in inference mode.
void see_beside_onednn(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// The same with the signatures of torch's own kernels; false if an op has another one.
bool specialize_factory(OpInfo* info, Registrations& registrations);
bool specialize_mixed(OpInfo* info, Registrations& registrations);

}  // namespace torchy
