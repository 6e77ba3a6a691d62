// The meta kernels of ops that are deferred as calls: what the CPU's own kernels lay out their
// results with. They are called directly, since the dispatcher has others, in Python, for many.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>

#include <string>

namespace torchy {

// Null for ops that have none here.
const c10::KernelFunction* meta_kernel(const std::string& op);

}  // namespace torchy
