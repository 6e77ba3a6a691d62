// Layouts of results, patterns of operands, and the process state that eager results depend on.
#pragma once

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/stack.h>
#include <ATen/ops/ones.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/Exception.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "keys.h"
#include "trie.h"

namespace torchy {

using Precision = std::array<at::Float32Precision, 3>;

// Which shortcuts matrix products, convolutions and recurrent layers may take on the CPU.
inline Precision float32_precision() {
  auto& context = at::globalContext();
  constexpr auto kCpu = at::Float32Backend::MKLDNN;
  return {context.float32Precision(kCpu, at::Float32Op::MATMUL),
          context.float32Precision(kCpu, at::Float32Op::CONV),
          context.float32Precision(kCpu, at::Float32Op::RNN)};
}

inline void set_float32_precision(const Precision& precision) {
  constexpr at::Float32Op kOps[] = {at::Float32Op::MATMUL, at::Float32Op::CONV, at::Float32Op::RNN};
  const auto now = float32_precision();
  for (size_t i = 0; i < precision.size(); ++i)
    if (precision[i] != now[i])
      at::globalContext().setFloat32Precision(at::Float32Backend::MKLDNN, kOps[i], precision[i]);
}

inline bool flushes_denormals() {
#if defined(__x86_64__)
  return (_mm_getcsr() & 0x8040u) != 0;
#else
  return false;
#endif
}

// Compared at each op: a change flushes first, and a flush runs under the state that the ops were
// recorded in.
struct ProcessState {
  c10::ScalarType default_dtype = c10::ScalarType::Float;
  int threads = 1;
  bool deterministic = false, warn_only = false, fill_memory = true, mkldnn = true;
  unsigned control_word = 0;

  bool operator==(const ProcessState&) const = default;

  static ProcessState now() {
    auto& context = at::globalContext();
    ProcessState state;
    state.default_dtype = c10::get_default_dtype_as_scalartype();
    state.threads = at::get_num_threads();
    state.deterministic = context.deterministicAlgorithms();
    state.warn_only = context.deterministicAlgorithmsWarnOnly();
    state.fill_memory = context.deterministicFillUninitializedMemory();
    state.mkldnn = context.userEnabledMkldnn();
#if defined(__x86_64__)
    state.control_word = _mm_getcsr() & ~0x3fu;  // without the sticky exception flags
#endif
    return state;
  }

  void apply() const {
    auto& context = at::globalContext();
    c10::set_default_dtype(c10::scalarTypeToTypeMeta(default_dtype));
    if (threads != at::get_num_threads()) at::set_num_threads(threads);
    context.setDeterministicAlgorithms(deterministic, warn_only);
    context.setDeterministicFillUninitializedMemory(fill_memory);
    context.setUserEnabledMkldnn(mkldnn);
#if defined(__x86_64__)
    _mm_setcsr(control_word);
#endif
  }
};

// The numbers are those of torchy.ir.trace.Mode, in order; see there.
enum Mode : uint8_t { kLinear = 0, kScalar = 1, kUnit = 2, kRepeat = 3, kStrided = 4 };
constexpr uint8_t kSameSizes = 8;

inline bool dense(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  c10::SmallVector<std::pair<int64_t, int64_t>, 5> steps;  // (stride, size)
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return true;
    if (sizes[i] != 1) steps.emplace_back(strides[i], sizes[i]);
  }
  std::sort(steps.begin(), steps.end());
  int64_t expected = 1;
  for (auto [stride, size] : steps) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// The dimension in which a tensor's neighbours are closest; -1 if it has one element at most.
inline int inner_dimension(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  int inner = -1;
  for (int i = static_cast<int>(sizes.size()) - 1; i >= 0; --i) {
    if (sizes[i] > 1 && (inner < 0 || strides[i] < strides[inner])) inner = i;
  }
  return inner;
}

inline uint8_t mode_of(c10::IntArrayRef sizes, c10::IntArrayRef strides, const Layout& space,
                       bool space_dense) {
  c10::IntArrayRef space_sizes(space.sizes);
  bool same_sizes = sizes == space_sizes;
  if (same_sizes) {
    bool same_strides = space_dense;
    for (size_t i = 0; same_strides && i < sizes.size(); ++i)
      same_strides = sizes[i] <= 1 || strides[i] == space.strides[i];
    if (same_strides) return kLinear | kSameSizes;
  } else {
    int64_t elements = 1;
    for (auto size : sizes) elements *= size;
    if (elements == 1) return kScalar;
  }
  uint8_t flags = same_sizes ? kSameSizes : 0;
  int inner = inner_dimension(space_sizes, space.strides);
  if (inner < 0) return kUnit | flags;
  int own = inner - static_cast<int>(space_sizes.size() - sizes.size());
  if (own < 0 || (sizes[own] == 1 && space_sizes[inner] != 1)) return kRepeat | flags;
  if (strides[own] == 1) return kUnit | flags;
  return (strides[own] == 0 ? kRepeat : kStrided) | flags;
}

// Counts warnings instead of showing them: an op that would warn is run now, so that eager itself
// does it.
class CountWarnings : public c10::WarningHandler {
 public:
  void process(const c10::Warning&) override { ++count; }
  int count = 0;
};

// Passes warnings on, and remembers that there were any.
class NoteWarnings : public c10::WarningHandler {
 public:
  explicit NoteWarnings(c10::WarningHandler* next) : next_(next) {}
  void process(const c10::Warning& warning) override {
    any = true;
    next_->process(warning);
  }
  bool any = false;

 private:
  c10::WarningHandler* next_;
};

inline Layout layout_of(const at::Tensor& tensor) {
  Layout layout;
  if (!tensor.defined()) return layout;
  layout.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  layout.strides.assign(tensor.strides().begin(), tensor.strides().end());
  layout.dtype = tensor.scalar_type();
  layout.bytes =
      at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.element_size());
  return layout;
}

// Replaces each tensor in an argument (lists included).
template <typename F>
c10::IValue map_tensors(const c10::IValue& value, const F& f) {
  if (value.isTensor())
    return value.toTensor().defined() ? c10::IValue(f(value.toTensor())) : value;
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(f(tensor));
    return list;
  }
  return value;
}

inline Layout contiguous_layout(c10::SmallVector<int64_t, 5> sizes, c10::ScalarType dtype) {
  Layout layout;
  layout.strides.resize(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    layout.strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  layout.bytes = at::detail::computeStorageNbytesContiguous(sizes, c10::elementSize(dtype));
  layout.sizes = std::move(sizes);
  layout.dtype = dtype;
  return layout;
}

// The range that an op's numbers span.
struct Range {
  double low = 0, high = 0;
  bool finite = true, fractions = false;

  void include(char kind, int64_t bits) {
    double value = static_cast<double>(bits);
    if (kind == 'f') {
      std::memcpy(&value, &bits, sizeof value);
      fractions = true;
    }
    if (!std::isfinite(value)) {
      finite = false;
      return;
    }
    low = std::min(low, value);
    high = std::max(high, value);
  }

  bool harmless() const { return finite && low >= 0 && high <= 127; }

  // Whether c10::checked_convert, and a cast without a check, take all of them.
  bool fits(c10::ScalarType dtype) const {
    auto within = [this](auto limits) {
      using Limits = decltype(limits);
      return low >= static_cast<double>(Limits::lowest()) &&
             high <= static_cast<double>(Limits::max());
    };
    switch (dtype) {
      case c10::kDouble:
      case c10::kComplexDouble:
      case c10::kBool:
        return true;
      case c10::kFloat:
      case c10::kComplexFloat:
        return within(std::numeric_limits<float>());
      case c10::kBFloat16:
        return within(std::numeric_limits<c10::BFloat16>());
      case c10::kHalf:
        return within(std::numeric_limits<c10::Half>());
      case c10::kLong:
        return finite && low >= -0x1p63 && high < 0x1p63;
      case c10::kInt:
        return finite && within(std::numeric_limits<int32_t>());
      case c10::kShort:
        return finite && within(std::numeric_limits<int16_t>());
      case c10::kChar:
        return finite && within(std::numeric_limits<int8_t>());
      case c10::kByte:  // whole numbers may be negative: they wrap
        return finite && high <= 255 && low >= (fractions ? 0 : -255);
      default:
        return harmless();
    }
  }
};

using Tensors = c10::SmallVector<at::Tensor, 4>;

// Strides that reach no element are nobody's business but TensorIterator's, and there it matters
// how many numbers beside the tensors a kernel hands to it.
inline bool has_idle_strides(const at::Tensor& tensor) {
  int64_t step = 1;
  bool idle = false, contiguous = true;
  for (int64_t i = tensor.dim() - 1; i >= 0; --i) {
    idle = idle || tensor.size(i) == 1;
    contiguous = contiguous && tensor.stride(i) == step;
    step *= std::max<int64_t>(tensor.size(i), 1);
  }
  return tensor.numel() == 0 || (idle && !contiguous);
}

// TensorIterator's own rule, asked on tensors without memory.
inline std::optional<Layout> iterate_layout(const Tensors& operands, const at::Tensor& target,
                                            c10::ScalarType dtype) {
  auto twin = [](const at::Tensor& tensor, c10::ScalarType type) {
    return at::detail::empty_strided_meta(tensor.sizes(), tensor.strides(), type);
  };
  at::TensorIteratorConfig config;
  config.set_check_mem_overlap(false)
      .check_all_same_dtype(false)
      .resize_outputs(false)
      .declare_static_dtype_and_device(dtype, c10::kMeta);
  config.add_owned_output(target.defined() ? twin(target, dtype) : at::Tensor());
  for (const at::Tensor& operand : operands) config.add_owned_const_input(twin(operand, dtype));
  auto iterator = config.build();
  return layout_of(iterator.output(0));
}

inline std::optional<Layout> matmul_layout(LayoutRule rule, const Tensors& t,
                                           c10::ScalarType dtype) {
  size_t left = rule == LayoutRule::kMatmul ? 0 : 1;  // the others add to a first operand
  if (t.size() != left + 2) return std::nullopt;
  const at::Tensor &a = t[left], &b = t[left + 1];
  if (a.dim() != b.dim() || a.dim() < 2 || a.dim() > 3) return std::nullopt;
  int64_t last = a.dim() - 1;
  if (a.size(last) != b.size(last - 1) || (last == 2 && a.size(0) != b.size(0)))
    return std::nullopt;
  c10::SmallVector<int64_t, 5> sizes(a.sizes().begin(), a.sizes().end());
  sizes[last] = b.size(last);
  if (left == 1) {  // broadcast to the result
    auto added = t[0].sizes();
    if (added.size() > sizes.size()) return std::nullopt;
    for (size_t i = 0; i < added.size(); ++i)
      if (added[added.size() - 1 - i] != 1 &&
          added[added.size() - 1 - i] != sizes[sizes.size() - 1 - i])
        return std::nullopt;
  }
  return contiguous_layout(std::move(sizes), dtype);
}

inline std::optional<Layout> reduced_layout(const OpInfo& info, const torch::jit::Stack& stack,
                                            const at::Tensor& self, c10::ScalarType dtype) {
  if (self.dim() == 0 || self.dim() > 63 || self.numel() == 0) return std::nullopt;
  uint64_t reduced = ~uint64_t{0};
  bool keep = false;
  for (size_t i = 0; i < info.arguments; ++i) {
    const auto& value = stack[stack.size() - info.arguments + i];
    const auto& name = info.op.schema().arguments()[i].name();
    if (name == "keepdim") keep = value.toBool();
    if (name != "dim" || value.isNone()) continue;
    std::vector<int64_t> dims =
        value.isInt() ? std::vector<int64_t>{value.toInt()} : value.toIntVector();
    if (dims.empty()) continue;
    reduced = 0;
    for (int64_t dim : dims) {
      if (dim < 0) dim += self.dim();
      if (dim < 0 || dim >= self.dim() || (reduced >> dim & 1)) return std::nullopt;
      reduced |= uint64_t{1} << dim;
    }
  }
  c10::SmallVector<int64_t, 5> sizes;
  for (int64_t i = 0; i < self.dim(); ++i) {
    if (!(reduced >> i & 1))
      sizes.push_back(self.size(i));
    else if (keep)
      sizes.push_back(1);
  }
  return contiguous_layout(std::move(sizes), dtype);
}

// The layouts of the results for new sizes; nothing if eager would raise or warn, or if no rule is
// known: then the op is run, and what eager does is what it does.
inline std::optional<std::vector<Layout>> infer_layouts(const OpInfo& info,
                                                        const Signature& signature,
                                                        const torch::jit::Stack& stack) {
  const auto& dtypes = signature.result_dtypes;
  if (info.results != 1 || dtypes.size() != 1 || signature.rule == LayoutRule::kLearn)
    return std::nullopt;
  Tensors operands;
  const size_t first = stack.size() - info.arguments;
  for (size_t i = 0; i < info.arguments; ++i) {
    if (!stack[first + i].isTensor()) continue;
    const auto& tensor = stack[first + i].toTensor();
    if (tensor.defined() && !tensor.unsafeGetTensorImpl()->is_wrapped_number())
      operands.push_back(tensor);
  }
  if (operands.empty()) return std::nullopt;
  CountWarnings warnings;
  std::optional<Layout> layout;
  try {
    BelowEverything below;
    c10::WarningUtils::WarningHandlerGuard guard(&warnings);
    switch (signature.rule) {
      case LayoutRule::kIterate: {
        int target = info.result_argument[0];
        if (std::any_of(operands.begin(), operands.end(), has_idle_strides)) return std::nullopt;
        if (target < 0) {
          layout = iterate_layout(operands, at::Tensor(), dtypes[0]);
          break;
        }
        // in-place forms take their target as an operand too, out= forms must not
        at::Tensor written = stack[first + target].toTensor();
        if (info.op.schema().arguments()[target].kwarg_only()) {
          auto same = [&](const at::Tensor& tensor) { return tensor.is_same(written); };
          operands.erase(std::remove_if(operands.begin(), operands.end(), same), operands.end());
          if (operands.empty()) return std::nullopt;
          auto wanted = iterate_layout(operands, at::Tensor(), dtypes[0]);
          if (!wanted || !(wanted->sizes == layout_of(written).sizes)) return std::nullopt;
        }
        layout = iterate_layout(operands, written, dtypes[0]);
        break;
      }
      case LayoutRule::kPreserve:
        if (!operands[0].is_non_overlapping_and_dense()) return std::nullopt;
        layout = layout_of(operands[0]);
        layout->dtype = dtypes[0];
        layout->bytes = operands[0].numel() * c10::elementSize(dtypes[0]);
        break;
      case LayoutRule::kLikeFirst:
        if (!operands[0].is_contiguous()) return std::nullopt;
        layout =
            contiguous_layout({operands[0].sizes().begin(), operands[0].sizes().end()}, dtypes[0]);
        break;
      case LayoutRule::kContiguous:
        for (const at::Tensor& operand : operands)
          if (!at::is_expandable_to(operand.sizes(), operands[0].sizes())) return std::nullopt;
        layout =
            contiguous_layout({operands[0].sizes().begin(), operands[0].sizes().end()}, dtypes[0]);
        break;
      case LayoutRule::kReduce:
        layout = reduced_layout(info, stack, operands[0], dtypes[0]);
        break;
      default:
        layout = matmul_layout(signature.rule, operands, dtypes[0]);
    }
  } catch (const std::exception&) {
    return std::nullopt;
  }
  if (warnings.count > 0 || !layout) return std::nullopt;
  return std::vector<Layout>{*layout};
}

// Whether the real op takes these dtypes, ranks and constants, and the dtypes of its results: tried
// on one element each.
inline std::optional<std::vector<c10::ScalarType>> try_on_one_element(
    const OpInfo& info, const torch::jit::Stack& stack) {
  CountWarnings warnings;
  std::vector<c10::ScalarType> dtypes;
  try {
    BelowEverything below;
    c10::WarningUtils::WarningHandlerGuard guard(&warnings);
    torch::jit::Stack tiny;
    for (size_t i = stack.size() - info.arguments; i < stack.size(); ++i) {
      tiny.push_back(map_tensors(stack[i], [](const at::Tensor& tensor) {
        if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
        std::vector<int64_t> sizes(tensor.dim(), 1);
        return at::ones(sizes, at::TensorOptions(tensor.scalar_type()));
      }));
    }
    info.op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &tiny);
    for (const auto& result : tiny) dtypes.push_back(result.toTensor().scalar_type());
  } catch (const std::exception&) {
    return std::nullopt;
  }
  if (warnings.count > 0) return std::nullopt;
  return dtypes;
}

}  // namespace torchy
