#include "select.h"

#include <c10/core/TensorOptions.h>

#include <optional>
#include <sstream>
#include <string>
#include <tuple>

#include "claim.h"
#include "draws.h"
#include "prototypes.h"

namespace torchy {

namespace {

constexpr c10::DispatchKeySet kAfter(c10::DispatchKeySet::FULL_AFTER,
                                     c10::DispatchKey::BackendSelect);
constexpr int64_t kNoticedElements = Session::kNoticed / 16;  // of any dtype

// Whether an argument tells that what is made is small.
bool tells_small(c10::SymIntArrayRef sizes) {
  int64_t elements = 1;
  for (const c10::SymInt& size : sizes) {
    const auto known = size.maybe_as_int();
    if (!known || *known >= kNoticedElements) return false;
    elements *= *known;
    if (elements >= kNoticedElements) return false;
  }
  return true;
}
template <typename T>
bool tells_small(const T& /*no sizes*/) {
  return false;
}

// `own` is torch's kernel, which finds the backend.
template <typename R, typename... A>
struct Factory : c10::OperatorKernel {
  Factory(OpInfo* info, c10::KernelFunction own)
      : info(info), own(std::move(own)), draws(makes_draw(*info)) {}
  OpInfo* info;
  c10::KernelFunction own;
  bool draws;  // what fills its result arrives, too

  R operator()(c10::DispatchKeySet keys, A... arguments) const {
    if (!this_session) return run(keys, std::forward<A>(arguments)...);
    if (!(tells_small(arguments) || ...)) make_room();
    std::optional<Paused> paused;
    if (!draws) paused.emplace();
    return run(keys, std::forward<A>(arguments)...);
  }

  R run(c10::DispatchKeySet keys, A... arguments) const {
    return own.call<R, A...>(info->op, keys, std::forward<A>(arguments)...);
  }
};

template <typename R, typename... A>
struct BesideOneDnn : c10::OperatorKernel {
  explicit BesideOneDnn(OpInfo* info) : info(info), op(info->op.typed<R(A...)>()) {}
  OpInfo* info;
  c10::TypedOperatorHandle<R(A...)> op;

  R operator()(c10::DispatchKeySet keys, A... arguments) const {
    if (keys.has(c10::DispatchKey::MkldnnCPU)) {
      settle_arguments(*info, c10::impl::boxArgs<A...>(arguments...));
      keys = keys.remove_backend(kBit);
    }
    return op.redispatch(keys & kAfter, arguments...);
  }
};

}  // namespace

bool selects_as_torch(const c10::OperatorHandle& op) {
  std::istringstream lines(op.dumpState());
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("BackendSelect: "))
      return line.find("/RegisterBackendSelect.cpp") != std::string::npos;
  return false;
}

void run_factory(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  std::optional<c10::ScalarType> dtype;
  std::optional<c10::Layout> layout;
  std::optional<c10::Device> device;
  bool small = false;  // else nobody knows
  const auto& arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& value = (*stack)[first + i];
    if (value.isNone()) continue;
    if (arguments[i].name() == "size" && value.isIntList()) {
      small = c10::multiply_integers(value.toIntVector()) < kNoticedElements;
    }
    if (arguments[i].name() == "dtype") dtype = value.toScalarType();
    if (arguments[i].name() == "layout") layout = value.toLayout();
    if (arguments[i].name() == "device") device = value.toDevice();
  }
  c10::DispatchKeySet keys(c10::computeDispatchKey(dtype, layout, device));
  settle_arguments(*info_of(op), *stack);
  if (!small) make_room();
  bool tensors = false;
  for (size_t i = 0; i < arguments.size(); ++i)
    each_tensor((*stack)[first + i], [&](const at::Tensor& tensor) {
      keys = keys | tensor.key_set();
      tensors = true;
    });
  std::optional<Paused> paused;
  if (!makes_draw(*info_of(op))) paused.emplace();
  // as the kernels that torch generates do: the thread's keys count only beside tensors
  op.redispatchBoxed(tensors ? c10::impl::computeDispatchKeySet(keys, kAfter) : keys, stack);
}

void see_beside_onednn(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (keys.has(c10::DispatchKey::MkldnnCPU)) {
    settle_arguments(*info_of(op), *stack);
    keys = keys.remove_backend(kBit);
  }
  op.redispatchBoxed(keys & kAfter, stack);
}

bool specialize_factory(OpInfo* info, Registrations& registrations) {
  bool done = false;
  prototypes::Factories::visit(
      info->op.schema(), [&]<typename R, typename... A>(Prototype<R, A...>) {
        auto own = own_kernel(info->op, c10::DispatchKey::BackendSelect);
        put(*info, c10::DispatchKey::BackendSelect,
            std::make_unique<Factory<R, A...>>(info, std::move(own)), registrations);
        done = true;
      });
  return done;
}

bool specialize_mixed(OpInfo* info, Registrations& registrations) {
  const auto specialize = [&]<typename R, typename... A>(Prototype<R, A...>) {
    put(*info, c10::DispatchKey::BackendSelect, std::make_unique<BesideOneDnn<R, A...>>(info),
        registrations);
    return true;
  };
  using T = const at::Tensor&;
  using Maybe = const std::optional<at::Tensor>&;
  if (info->name == "aten::copy_")
    return specialize(Prototype<at::Tensor&, at::Tensor&, T, bool>());
  if (info->name == "aten::clone")
    return specialize(Prototype<at::Tensor, T, std::optional<at::MemoryFormat>>());
  if (info->name == "aten::native_batch_norm")
    return specialize(Prototype<std::tuple<at::Tensor, at::Tensor, at::Tensor>, T, Maybe, Maybe,
                                Maybe, Maybe, bool, double, double>());
  return false;
}

}  // namespace torchy
