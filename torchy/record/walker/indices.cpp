#include "indices.h"

#include "keys.h"

namespace torchy {

namespace {

// The elements of a tensor; null if they are pending, or not one after another.
const int64_t* elements_of(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.scalar_type() != c10::kLong || !tensor.has_storage() ||
      !tensor.is_contiguous())
    return nullptr;
  // through the storage: a look at a pending one would compute it
  const auto* data = static_cast<const int64_t*>(tensor.storage().data_ptr().get());
  return data ? data + tensor.storage_offset() : nullptr;
}

}  // namespace

bool indices_fit(const OpInfo& info, const torch::jit::Stack& stack) {
  const Indices& indices = info.indices;
  const auto argument = [&](int index) -> const c10::IValue& {
    return stack[stack.size() - info.arguments + static_cast<size_t>(index)];
  };
  if (!argument(indices.argument).isTensor() || !argument(indices.into).isTensor()) return false;
  const at::Tensor& tensor = argument(indices.argument).toTensor();
  const at::Tensor& into = argument(indices.into).toTensor();
  const int64_t* elements = elements_of(tensor);
  if (!elements || !into.defined() || into.dim() == 0) return false;
  int64_t dimension = indices.dimension;
  if (indices.dimension_argument >= 0) dimension = argument(indices.dimension_argument).toInt();
  if (dimension < -into.dim() || dimension >= into.dim()) return false;
  const auto size = static_cast<uint64_t>(into.size(dimension));
  bool fit = true;
  if (indices.ignored < 0) {
    for (int64_t i = 0; i < tensor.numel(); ++i)
      fit = fit & (static_cast<uint64_t>(elements[i]) < size);
  } else {
    const int64_t ignored = argument(indices.ignored).toInt();
    for (int64_t i = 0; i < tensor.numel(); ++i)
      fit = fit & (static_cast<uint64_t>(elements[i]) < size || elements[i] == ignored);
  }
  return fit;
}

}  // namespace torchy
