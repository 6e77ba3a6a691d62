#include "gradients.h"

#include <ATen/SequenceNumber.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>

#include <cstring>
#include <memory>
#include <typeinfo>
#include <unordered_set>

#include "see.h"
#include "settle.h"

namespace torchy {

namespace {

// Before a gradient in C++ is computed: it may look at what it is given.
struct SettleGradients : torch::autograd::FunctionPreHook {
  explicit SettleGradients(std::string op) : op_(std::move(op)) {}

  torch::autograd::variable_list operator()(
      const torch::autograd::variable_list& gradients) override {
    for (const auto& gradient : gradients)
      if (auto* storage = gradient.defined() ? watched_storage(gradient) : nullptr)
        settle_storage(storage, /*written=*/false, Reason::kOperand, op_);
    return gradients;
  }

 private:
  std::string op_;
};

// A node of torch::autograd::Function<T>, whose template has no base class of its own.
bool is_custom(const torch::autograd::Node& node) {
  return std::strstr(typeid(node).name(), "7CppNodeI") != nullptr;
}

}  // namespace

void hook_gradients(const OpInfo& info, const Stack& stack, uint64_t since) {
  std::vector<torch::autograd::Node*> waiting;
  std::unordered_set<torch::autograd::Node*> known;
  auto meet = [&](torch::autograd::Node* node) {
    if (node && node->sequence_nr() >= since && known.insert(node).second) waiting.push_back(node);
  };
  for (size_t i = stack.size() - info.results; i < stack.size(); ++i)
    each_tensor(stack[i], [&](const at::Tensor& tensor) {
      if (tensor.requires_grad()) meet(tensor.grad_fn().get());
    });
  while (!waiting.empty()) {
    auto* node = waiting.back();
    waiting.pop_back();
    if (is_custom(*node)) node->add_pre_hook(std::make_unique<SettleGradients>(info.name));
    for (const auto& edge : node->next_edges()) meet(edge.function.get());
  }
}

}  // namespace torchy
