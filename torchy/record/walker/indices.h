// Arguments whose elements eager checks: targets of losses, indices.
#pragma once

#include <ATen/core/stack.h>

#include "mutex.h"
#include "trie.h"

namespace torchy {

// Whether an op's indices are there to be read, and eager would not raise for any of them. What is
// recorded then may be run later: until then nobody writes to them unnoticed.
bool indices_fit(const OpInfo& info, const torch::jit::Stack& stack) TORCHY_REQUIRES(shared_mutex);

}  // namespace torchy
