#include "meta.h"

#include <ATen/ExpandUtils.h>
#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_log_softmax_backward_data_meta_dispatch.h>
#include <ATen/ops/_log_softmax_meta_dispatch.h>
#include <ATen/ops/_softmax_backward_data_meta_dispatch.h>
#include <ATen/ops/_softmax_meta_dispatch.h>
#include <ATen/ops/addmm_meta_dispatch.h>
#include <ATen/ops/all_meta_dispatch.h>
#include <ATen/ops/amax_meta_dispatch.h>
#include <ATen/ops/amin_meta_dispatch.h>
#include <ATen/ops/any_meta_dispatch.h>
#include <ATen/ops/baddbmm_meta_dispatch.h>
#include <ATen/ops/bmm_meta_dispatch.h>
#include <ATen/ops/cat_meta_dispatch.h>
#include <ATen/ops/cumsum_meta_dispatch.h>
#include <ATen/ops/mean_meta_dispatch.h>
#include <ATen/ops/mm_meta_dispatch.h>
#include <ATen/ops/prod_meta_dispatch.h>
#include <ATen/ops/sum_meta_dispatch.h>
#include <ATen/ops/tril_meta_dispatch.h>
#include <ATen/ops/triu_meta_dispatch.h>

#include <unordered_map>

namespace torchy {

const c10::KernelFunction* meta_kernel(const std::string& op) {
  using at::Tensor;
  using Dtype = std::optional<at::ScalarType>;
  namespace meta = at::meta;
  constexpr auto box = [](auto* function) {
    return c10::KernelFunction::makeFromUnboxedRuntimeFunction(function);
  };
  using Dims = at::OptionalIntArrayRef;
  // whole reductions are those over all dimensions
  const auto sum = +[](const Tensor& a, Dtype d) { return meta::sum(a, std::nullopt, false, d); };
  const auto mean = +[](const Tensor& a, Dtype d) { return meta::mean(a, std::nullopt, false, d); };
  const auto addmm = +[](const Tensor& c, const Tensor& a, const Tensor& b, const at::Scalar& beta,
                         const at::Scalar& alpha) {
    Tensor result = meta::addmm(c, a, b, beta, alpha);
    TORCH_CHECK(at::is_expandable_to(c.sizes(), result.sizes()));  // left to the CPU's kernel
    return result;
  };
  static const std::unordered_map<std::string, c10::KernelFunction> kernels = {
      {"aten::mm", box(&meta::mm)},
      {"aten::bmm", box(&meta::bmm)},
      {"aten::addmm", box(addmm)},
      {"aten::baddbmm", box(&meta::baddbmm)},
      {"aten::sum", box(sum)},
      {"aten::sum.dim_IntList", box(&meta::sum)},
      {"aten::mean", box(mean)},
      {"aten::mean.dim", box(&meta::mean)},
      {"aten::prod", box(sum)},  // lies in memory as a sum does
      {"aten::prod.dim_int", box(&meta::prod)},
      {"aten::amax", box(&meta::amax)},
      {"aten::amin", box(&meta::amin)},
      {"aten::any", box(static_cast<Tensor (*)(const Tensor&)>(&meta::any))},
      {"aten::any.dim", box(static_cast<Tensor (*)(const Tensor&, int64_t, bool)>(&meta::any))},
      {"aten::any.dims", box(static_cast<Tensor (*)(const Tensor&, Dims, bool)>(&meta::any))},
      {"aten::all", box(static_cast<Tensor (*)(const Tensor&)>(&meta::all))},
      {"aten::all.dim", box(static_cast<Tensor (*)(const Tensor&, int64_t, bool)>(&meta::all))},
      {"aten::all.dims", box(static_cast<Tensor (*)(const Tensor&, Dims, bool)>(&meta::all))},
      {"aten::cat", box(&meta::cat)},
      {"aten::cumsum", box(&meta::cumsum)},
      {"aten::tril", box(&meta::tril)},
      {"aten::triu", box(&meta::triu)},
      {"aten::_softmax", box(&meta::_softmax)},
      {"aten::_log_softmax", box(&meta::_log_softmax)},
      {"aten::_softmax_backward_data", box(&meta::_softmax_backward_data)},
      {"aten::_log_softmax_backward_data", box(&meta::_log_softmax_backward_data)}};
  const auto found = kernels.find(op);
  return found == kernels.end() ? nullptr : &found->second;
}

}  // namespace torchy
