// Gradients that other libraries compute in C++. They may read memory by pointers.
#pragma once

#include <ATen/core/stack.h>

#include "trie.h"

namespace torchy {

// Gives what an op has added to the graph its hooks. `since`: the thread's number when it began.
void hook_gradients(const OpInfo& info, const torch::jit::Stack& stack, uint64_t since);

}  // namespace torchy
