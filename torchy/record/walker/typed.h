// Kernels with the signatures of torch's own, for the ops that are recorded most: their arguments
// arrive as they are. At autograd's key too, which is passed by where no gradient can flow.
#pragma once

#include <memory>
#include <string>
#include <unordered_set>

#include "kernels.h"

namespace torchy {

// Gives an op kernels of its own signature, if that is one of the frequent ones.
void specialize(OpInfo* info, Registrations& registrations);

// The op that item() is made of.
constexpr const char* kItem = "aten::_local_scalar_dense";

// Ops that may be recorded, by name and without overload; those of their in-place forms too.
inline std::unordered_set<std::string>& recordable_ops() {
  static auto* names = std::make_unique<std::unordered_set<std::string>>().release();
  return *names;
}

}  // namespace torchy
