#include "layout.h"

namespace torchy {

namespace {

// Sets this thread's number of threads. torch hands the one set last to threads that are new: to
// them it shall be as if nothing had been set. Does not raise: where no thread can be started,
// there will be no new ones either.
void set_threads(int number) {
  int initial = 0;
  try {
    std::thread([&initial] { initial = at::get_num_threads(); }).join();
  } catch (const std::system_error&) {
    initial = number;
  }
  at::set_num_threads(number);
  try {
    std::thread([initial] { at::set_num_threads(initial); }).join();
  } catch (const std::system_error&) {
    return;
  }
}

// The dimension in which a tensor's neighbours are closest; -1 if it has one element at most.
int inner_dimension(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  int inner = -1;
  for (int i = static_cast<int>(sizes.size()) - 1; i >= 0; --i) {
    if (sizes[i] > 1 && (inner < 0 || strides[i] < strides[inner])) inner = i;
  }
  return inner;
}

using Tensors = c10::SmallVector<at::Tensor, 4>;

// Strides that reach no element are nobody's business but TensorIterator's, and there it matters
// how many numbers beside the tensors a kernel hands to it.
bool has_idle_strides(const at::Tensor& tensor) {
  int64_t step = 1;
  bool idle = false, contiguous = true;
  for (int64_t i = tensor.dim() - 1; i >= 0; --i) {
    idle = idle || tensor.size(i) == 1;
    contiguous = contiguous && tensor.stride(i) == step;
    step *= std::max<int64_t>(tensor.size(i), 1);
  }
  return tensor.numel() == 0 || (idle && !contiguous);
}

// As large as a tensor, without memory.
at::Tensor meta_twin(const at::Tensor& tensor, c10::ScalarType dtype) {
  return at::detail::empty_strided_meta(tensor.sizes(), tensor.strides(), dtype);
}

// TensorIterator's own rule, asked on tensors without memory.
Layout iterate_layout(const Tensors& operands, const at::Tensor& target, c10::ScalarType dtype) {
  at::TensorIteratorConfig config;
  config.set_check_mem_overlap(false)
      .check_all_same_dtype(false)
      .resize_outputs(false)
      .declare_static_dtype_and_device(dtype, c10::kMeta);
  config.add_owned_output(target.defined() ? meta_twin(target, dtype) : at::Tensor());
  for (const at::Tensor& operand : operands)
    config.add_owned_const_input(meta_twin(operand, dtype));
  return layout_of(config.build().output(0));
}

// Whether a fresh result may lie otherwise than iterate_layout says: that depends on the order in
// which a kernel hands its operands to TensorIterator (rsub: the other one first), and on how the
// copies lie that it makes of operands of other dtypes.
bool is_ambiguous(const Tensors& operands, c10::ScalarType dtype) {
  auto contiguous = [](const at::Tensor& tensor) { return tensor.is_contiguous(); };
  if (std::all_of(operands.begin(), operands.end(), contiguous)) return false;
  const c10::ScalarType first_dtype = operands[0].scalar_type();
  auto other_dtype = [&](const at::Tensor& tensor) { return tensor.scalar_type() != first_dtype; };
  auto sparse = [](const at::Tensor& tensor) { return !tensor.is_non_overlapping_and_dense(); };
  const bool copies = !at::isFloatingType(first_dtype) ||
                      std::any_of(operands.begin(), operands.end(), other_dtype);
  if (copies && std::any_of(operands.begin(), operands.end(), sparse)) return true;
  constexpr size_t kMost = 3;  // operands, all of whose orders are looked at
  if (operands.size() > kMost) return true;
  const Layout first = iterate_layout(operands, at::Tensor(), dtype);
  c10::SmallVector<size_t, kMost> order(operands.size());
  std::iota(order.begin(), order.end(), 0);
  while (std::next_permutation(order.begin(), order.end())) {
    Tensors others;
    for (size_t i : order) others.push_back(operands[i]);
    if (!iterate_layout(others, at::Tensor(), dtype).same_as(first)) return true;
  }
  return false;
}

// What the op's own meta kernel says.
Layout meta_layout(const OpInfo& info, torch::jit::Stack stack) {
  for (c10::IValue& value : stack)
    value = map_tensors(value, [](const at::Tensor& tensor) {
      if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
      return meta_twin(tensor, tensor.scalar_type());
    });
  info.meta->callBoxed(info.op, c10::DispatchKeySet(c10::DispatchKey::Meta), &stack);
  return layout_of(stack.back().toTensor());
}

// By TensorIterator's rule; in-place forms take their target as an operand too, out= forms do not.
std::optional<Layout> pointwise_layout(const OpInfo& info, const torch::jit::Stack& stack,
                                       Tensors operands, c10::ScalarType dtype) {
  if (std::any_of(operands.begin(), operands.end(), has_idle_strides)) return std::nullopt;
  const int target = info.result_argument[0];
  if (target < 0) {
    if (is_ambiguous(operands, dtype)) return std::nullopt;
    return iterate_layout(operands, at::Tensor(), dtype);
  }
  const at::Tensor& written = stack[stack.size() - info.arguments + target].toTensor();
  if (info.op.schema().arguments()[target].kwarg_only()) {
    auto same = [&](const at::Tensor& tensor) { return tensor.is_same(written); };
    operands.erase(std::remove_if(operands.begin(), operands.end(), same), operands.end());
    if (operands.empty()) return std::nullopt;
    if (iterate_layout(operands, at::Tensor(), dtype).sizes != layout_of(written).sizes)
      return std::nullopt;
  }
  return iterate_layout(operands, written, dtype);
}

// Raises where the op itself would.
std::optional<Layout> layout_by_rule(const OpInfo& info, LayoutRule rule,
                                     const torch::jit::Stack& stack, c10::ScalarType dtype) {
  const auto first = stack.end() - static_cast<ptrdiff_t>(info.arguments);
  if (rule == LayoutRule::kMeta) return meta_layout(info, {first, stack.end()});
  Tensors operands;
  for (auto value = first; value != stack.end(); ++value) {
    if (!value->isTensor() || !value->toTensor().defined()) continue;
    if (value->toTensor().unsafeGetTensorImpl()->is_wrapped_number()) continue;
    operands.push_back(value->toTensor());
  }
  if (operands.empty()) return std::nullopt;
  if (rule == LayoutRule::kIterate) return pointwise_layout(info, stack, operands, dtype);
  const at::Tensor& model = operands[0];
  if (rule == LayoutRule::kPreserve) {
    if (!model.is_non_overlapping_and_dense()) return std::nullopt;
    return layout_of(meta_twin(model, dtype));
  }
  for (const at::Tensor& operand : operands)
    if (!at::is_expandable_to(operand.sizes(), model.sizes())) return std::nullopt;
  return layout_of(at::detail::empty_meta(model.sizes(), dtype, c10::MemoryFormat::Contiguous));
}

}  // namespace

Precision float32_precision() {
  auto& context = at::globalContext();
  constexpr auto kCpu = at::Float32Backend::MKLDNN;
  return {context.float32Precision(kCpu, at::Float32Op::MATMUL),
          context.float32Precision(kCpu, at::Float32Op::CONV),
          context.float32Precision(kCpu, at::Float32Op::RNN)};
}

PrecisionFor::PrecisionFor(const Precision& wanted) {
  for (size_t i = 0; i < before_.size(); ++i) {  // the outermost first: they show through no more
    before_[i] = at::globalContext().float32Precision(kSettings[i].first, kSettings[i].second);
    set(i, i < kOuter ? at::Float32Precision::NONE : wanted[i - kOuter]);
  }
}

bool flushes_denormals() {
#if defined(__x86_64__)
  return (_mm_getcsr() & 0x8040u) != 0;
#else
  return false;
#endif
}

ProcessState ProcessState::now() {
  auto& context = at::globalContext();
  ProcessState state;
  state.default_dtype = c10::get_default_dtype_as_scalartype();
  state.threads = at::get_num_threads();
  state.deterministic = context.deterministicAlgorithms();
  state.warn_only = context.deterministicAlgorithmsWarnOnly();
  state.fill_memory = context.deterministicFillUninitializedMemory();
  state.mkldnn = context.userEnabledMkldnn();
  state.nnpack = context.userEnabledNNPACK();
#if defined(__x86_64__)
  state.control_word = _mm_getcsr() & ~0x3fu;  // without the sticky exception flags
#endif
  return state;
}

void ProcessState::apply() const {
  auto& context = at::globalContext();
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(default_dtype));
  if (threads != at::get_num_threads()) set_threads(threads);
  context.setDeterministicAlgorithms(deterministic, warn_only);
  context.setDeterministicFillUninitializedMemory(fill_memory);
  context.setUserEnabledMkldnn(mkldnn);
  context.setUserEnabledNNPACK(nnpack);
#if defined(__x86_64__)
  _mm_setcsr(control_word);
#endif
}

bool dense(c10::IntArrayRef sizes, c10::IntArrayRef strides) {
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

uint8_t mode_of(c10::IntArrayRef sizes, c10::IntArrayRef strides, const Layout& space,
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

Layout layout_of(const at::Tensor& tensor) {
  Layout layout;
  if (!tensor.defined()) return layout;
  layout.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  layout.strides.assign(tensor.strides().begin(), tensor.strides().end());
  layout.dtype = tensor.scalar_type();
  layout.bytes =
      at::detail::computeStorageNbytes(tensor.sizes(), tensor.strides(), tensor.element_size());
  layout.elements = tensor.numel();
  layout.contiguous = tensor.is_contiguous();
  return layout;
}

std::optional<Layout> infer_layout(const OpInfo& info, LayoutRule rule,
                                   const std::vector<c10::ScalarType>& dtypes,
                                   const torch::jit::Stack& stack) {
  if (info.results != 1 || dtypes.size() != 1 || rule == LayoutRule::kLearn) return std::nullopt;
  NoteWarnings warnings;
  try {
    BelowEverything below;
    auto layout = layout_by_rule(info, rule, stack, dtypes[0]);
    if (warnings.any || !layout || layout->dtype != dtypes[0]) return std::nullopt;
    return layout;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

std::optional<std::vector<c10::ScalarType>> try_on_one_element(const OpInfo& info,
                                                               const torch::jit::Stack& stack) {
  NoteWarnings warnings;
  std::vector<c10::ScalarType> dtypes;
  try {
    BelowEverything below;
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
  if (warnings.any) return std::nullopt;
  return dtypes;
}

}  // namespace torchy
