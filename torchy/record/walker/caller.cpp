#include "caller.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <tuple>

#include "layout.h"
#include "numbers.h"
#include "prototypes.h"

namespace torchy {

namespace {

// A tensor on memory that is not its own; its sizes are up to the caller.
at::Tensor tensor_on(void* memory, size_t bytes, c10::ScalarType dtype) {
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), c10::SymInt(static_cast<int64_t>(bytes)),
      c10::DataPtr(memory, c10::Device(c10::kCPU)), nullptr, /*resizable=*/false);
  return at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)),
      c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutocastCPU}),
      c10::scalarTypeToTypeMeta(dtype));
}

// The same of an idle one.
at::Tensor tensor_on(void* memory, size_t bytes, c10::ScalarType dtype, at::Tensor idle) {
  const c10::Storage& storage = idle.storage();
  storage.set_nbytes(bytes);
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(c10::DataPtr(memory, c10::Device(c10::kCPU)));
  if (idle.scalar_type() != dtype)
    idle.unsafeGetTensorImpl()->set_storage_and_dtype(storage, c10::scalarTypeToTypeMeta(dtype));
  return idle;
}

// A view's real tensor, made once for all ops of the flush.
const at::Tensor& shadow(Trace& trace, int index, bool gradient) {
  at::Tensor& known = trace.shadows[static_cast<size_t>(index)].by_gradient[gradient];
  if (known.defined()) return known;
  const View& view = trace.views[static_cast<size_t>(index)];
  const Slot& slot = trace.slots[static_cast<size_t>(view.slot)];
  auto& idle = trace.idle[gradient];
  if (idle.empty()) {
    known = tensor_on(slot.address(), slot.bytes, view.dtype);
    if (gradient) known.set_requires_grad(true);
  } else {
    known = tensor_on(slot.address(), slot.bytes, view.dtype, std::move(idle.back()));
    idle.pop_back();
  }
  const int64_t* at = &trace.words[view.at];
  known.unsafeGetTensorImpl()->set_sizes_and_strides(
      c10::IntArrayRef(at + 1, view.rank), c10::IntArrayRef(at + 1 + view.rank, view.rank), at[0]);
  return known;
}

// A step's arguments, one after another, with this recording's operands and numbers.
class StepArguments {
 public:
  StepArguments(Trace& trace, const Step& step)
      : trace_(trace),
        step_(step),
        operand_(step.operands.begin()),
        number_(trace.numbers.begin() + static_cast<ptrdiff_t>(step.numbers)) {}

  c10::IValue next() {
    const c10::IValue& known = step_.arguments[index_];
    const bool runtime = step_.info->runtime(index_++, known);
    if (runtime && is_scalar(known)) return number_of(*number_++, known);
    return map_tensors(known, [&](const at::Tensor& model) { return tensor(model, runtime); });
  }

  // The same as what a C++ signature has there, or as what owns what that refers to.
  template <typename A>
  auto next_as() {
    using Value = std::decay_t<A>;
    const c10::IValue& known = step_.arguments[index_];
    if constexpr (std::is_same_v<Value, at::Tensor>) {
      const bool runtime = step_.info->runtime(index_++, known);
      return known.toTensor().defined() ? tensor(known.toTensor(), runtime) : at::Tensor();
    } else if constexpr (std::is_same_v<Value, at::Scalar>) {
      return next().toScalar();
    } else if constexpr (std::is_same_v<Value, at::IntArrayRef>) {
      return next().toDimVector();
    } else if constexpr (std::is_same_v<Value, at::OptionalIntArrayRef>) {
      return next().to<c10::OptionalArray<int64_t>>();
    } else {
      return next().to<Value>();
    }
  }

 private:
  at::Tensor tensor(const at::Tensor& model, bool runtime) {
    if (is_number(model)) {
      if (!runtime) return model;
      const c10::IValue number = number_of(*number_++, item_of(model));
      return wrapped_number(number, computes_in_float());
    }
    return shadow(trace_, (operand_++)->view, model.requires_grad());
  }

  // TensorIterator converts a number to the dtype that it computes in, by an op of its own that
  // takes as long as the rest: the number may come in that dtype at once.
  bool computes_in_float() const {
    return step_.info->pointwise && step_.info->rule == LayoutRule::kIterate &&
           step_.operands.size() == 1 && step_.operands[0].dtype == c10::kFloat;
  }

  Trace& trace_;
  const Step& step_;
  size_t index_ = 0;
  std::vector<Operand>::const_iterator operand_;
  std::vector<int64_t>::const_iterator number_;
};

constexpr c10::DispatchKeySet kKernels(c10::DispatchKey::CPU);

template <typename R, typename... A>
class CallerOf final : public Caller {
 public:
  explicit CallerOf(const c10::OperatorHandle& op) : op_(op.typed<R(A...)>()) {}

  at::Tensor call(Trace& trace, const Step& step) const override {
    StepArguments given(trace, step);
    // in braces, so one after another
    std::tuple arguments{given.next_as<A>()...};
    return std::apply([&](auto&... values) -> R { return op_.redispatch(kKernels, values...); },
                      arguments);
  }

 private:
  c10::TypedOperatorHandle<R(A...)> op_;
};

// The result of an op becomes the memory of its slot.
void keep(Trace& trace, const Node& node, size_t index, at::Tensor result) {
  const auto slot_index = static_cast<size_t>(node.result_slots[index]);
  const int view_index = node.result_views[index];
  const View& view = trace.views[static_cast<size_t>(view_index)];
  const int64_t* at = &trace.words[view.at];
  Slot& slot = trace.slots[slot_index];
  TORCH_INTERNAL_ASSERT(
      result.sizes() == c10::IntArrayRef(at + 1, view.rank) && result.scalar_type() == view.dtype,
      "torchy: ", node.step->info->name, " gave another shape than recorded");
  auto& storage = *result.storage().unsafeGetStorageImpl();
  const bool stolen = result.strides() == c10::IntArrayRef(at + 1 + view.rank, view.rank) &&
                      result.storage_offset() == 0 && storage.nbytes() == slot.bytes &&
                      result.storage().use_count() == 1 && !slot.memory.get() &&
                      // a shadow's memory is a slot's: an op may return its argument
                      storage._mutable_data_ptr_no_checks().get_context();
  if (!stolen) {
    allocate(trace, static_cast<int64_t>(slot_index));
    shadow(trace, view_index, /*gradient=*/false).copy_(result);
    return;
  }
  slot.memory = std::move(storage._mutable_data_ptr_no_checks());
  trace.addresses[slot_index] = reinterpret_cast<int64_t>(slot.memory.get());
  storage.set_data_ptr_noswap(c10::DataPtr(slot.memory.get(), c10::Device(c10::kCPU)));
  // as good as any
  trace.shadows[static_cast<size_t>(view_index)].by_gradient[false] = std::move(result);
}

}  // namespace

std::shared_ptr<const Caller> caller_of(const c10::OperatorHandle& op) {
  std::shared_ptr<const Caller> caller;
  prototypes::Single::visit(op.schema(), [&]<typename R, typename... A>(Prototype<R, A...>) {
    caller = std::make_shared<const CallerOf<R, A...>>(op);
  });
  return caller;
}

void allocate(Trace& trace, int64_t index) {
  Slot& slot = trace.slots[static_cast<size_t>(index)];
  if (!slot.memory.get() && slot.bytes > 0)
    slot.memory = c10::GetCPUAllocator()->allocate(slot.bytes);
  trace.addresses[static_cast<size_t>(index)] = reinterpret_cast<int64_t>(slot.memory.get());
}

void release(Trace& trace, int64_t index) {
  Slot& slot = trace.slots[static_cast<size_t>(index)];
  if (slot.live) return;
  if (!trace.shadows.empty())
    for (int view = slot.last_view; view >= 0;
         view = trace.views[static_cast<size_t>(view)].previous)
      trace.shadows[static_cast<size_t>(view)].drop(trace.idle);
  slot.memory.clear();
  slot.kept.reset();
  trace.addresses[static_cast<size_t>(index)] = 0;
}

void call(Trace& trace, int64_t index) {
  const Node& node = *trace.path[static_cast<size_t>(index)];
  const Step& step = *node.step;
  const OpInfo& info = *step.info;
  if (c10::GradMode::is_enabled() != step.grad_mode) c10::GradMode::set_enabled(step.grad_mode);
  trace.shadows.resize(trace.views.size());
  const auto is_fresh = [&](size_t result) {
    return node.result_slots[result] >= 0 && info.result_argument[result] < 0;
  };
  if (info.caller) {
    at::Tensor result = info.caller->call(trace, step);
    if (is_fresh(0)) keep(trace, node, 0, std::move(result));
    return;
  }
  StepArguments given(trace, step);
  torch::jit::Stack stack;
  stack.reserve(std::max(step.arguments.size(), info.results));
  for (size_t i = 0; i < step.arguments.size(); ++i) stack.push_back(given.next());
  info.op.redispatchBoxed(kKernels, &stack);
  for (size_t i = 0; i < info.results; ++i)
    if (is_fresh(i)) keep(trace, node, i, std::move(stack[i]).toTensor());
}

}  // namespace torchy
