// torch's own kernels, and how Torchy's take their place.
#pragma once

#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <utility>
#include <vector>

#include "trie.h"

namespace torchy {

using Registrations = std::vector<c10::RegistrationHandleRAII>;

// SafeKernelFunction keeps its kernel private.
template <auto kMember>
struct OpenMember {
  friend auto kernel_member(c10::SafeKernelFunction*) { return kMember; }
};
auto kernel_member(c10::SafeKernelFunction*);
template struct OpenMember<&c10::SafeKernelFunction::kernel_>;

// torch's own kernel for a key.
inline c10::KernelFunction own_kernel(const c10::OperatorHandle& op, c10::DispatchKey key) {
  const auto safe = op.getComputedKernelForDispatchKey(key);
  return safe.*kernel_member(static_cast<c10::SafeKernelFunction*>(nullptr));
}

// Gives an op a kernel that takes its arguments as they are.
template <typename Kernel>
void put(const OpInfo& info, c10::DispatchKey key, std::unique_ptr<Kernel> kernel,
         Registrations& registrations) {
  registrations.push_back(c10::Dispatcher::singleton().registerImpl(
      info.op.operator_name(), key,
      c10::KernelFunction::makeFromUnboxedFunctor<false, Kernel>(std::move(kernel)), std::nullopt,
      nullptr, "torchy"));
}

}  // namespace torchy
