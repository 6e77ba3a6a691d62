// Arguments whose elements eager checks: targets of losses, indices.
#pragma once

#include <ATen/core/stack.h>

#include "mutex.h"
#include "trie.h"

namespace torchy {

// Whether an op's indices are there to be read, and eager would not raise for any of them. What is
// recorded then may be run later: the recorder refuses storages that could be written to unseen
// (fit_storage), and whoever writes to a trace's input has it flushed first. Of ops whose kernels
// take what is out of range as it comes (embedding_dense_backward) nothing is asked.
bool indices_fit(const OpInfo& info, const torch::jit::Stack& stack) TORCHY_REQUIRES(shared_mutex);

}  // namespace torchy
