#include "typed.h"

#include <torch/csrc/autograd/variable.h>

#include <type_traits>

#include "caller.h"
#include "expect.h"
#include "interpret.h"
#include "prototypes.h"
#include "see.h"

namespace torchy {

namespace {

// No gradient of either kind flows through an argument.
bool has_no_gradient(const at::Tensor& tensor) {
  auto* meta =
      static_cast<torch::autograd::AutogradMeta*>(tensor.unsafeGetTensorImpl()->autograd_meta());
  if (!meta) return true;
  // a view may get either from its base, which has changed since
  if (meta->fw_grad_ || (meta->is_view_ && tensor._fw_grad(/*level=*/0).defined())) return false;
  return !c10::GradMode::is_enabled() || !meta->requires_grad();
}
template <typename T>
bool has_no_gradient(const T& /*no tensor*/) {
  return true;
}

// The session that this thread's ops are recorded into, as far as that can be told without the op.
Session* session_here() {
  Session* session = recording_here();
  return session && !flushes_denormals() && !claims_are_due() ? session : nullptr;
}

template <typename... A>
bool record_if_known(const OpInfo& info, at::Tensor& result, const A&... arguments) {
  if (info.op_class != OpClass::kDefer) return false;
  Session* session = session_here();
  if (!session) return false;
  Known known = record_known(info, *session, result, arguments...);
  if (known == Known::kNeedsRoot) {
    root_of(*session);
    known = record_known(info, *session, result, arguments...);
  }
  if (known == Known::kTooLong) {
    const std::shared_ptr<Session> held = this_session;
    flush(*held, Reason::kLength, "");
  }
  return known == Known::kYes || known == Known::kTooLong;
}

// Of an op on single elements, none pending, nothing is gained: see Recorder::read_arguments.
bool is_single(const at::Tensor& tensor) {
  auto& impl = *tensor.unsafeGetTensorImpl();
  return tensor.defined() && impl.dim() == 0 && !carries_bit(impl) && !watched_storage(tensor);
}
template <typename T>
bool is_single(const T& /*no tensor*/) {
  return true;
}

// Whether nobody between autograd and the backend wants to see an op: no mode, no transform.
bool goes_to_backend(c10::DispatchKeySet keys) {
  constexpr c10::DispatchKeySet views(c10::DispatchKey::ADInplaceOrView);
  const auto below = (keys & c10::after_autograd_keyset) - views;
  return below.highestFunctionalityKey() == c10::DispatchKey::Dense;
}

// Whether an op that may be deferred is seen, and may run now as well; it is counted then.
bool run_now_here(const OpInfo& info) {
  if (info.op_class != OpClass::kDefer) return false;
  Session* session = session_here();
  if (session) count_run_now(*session);
  return session != nullptr;
}

template <typename First, typename... Rest>
First& first_of(First& first, Rest&&... /*rest*/) {
  return first;
}

// Below autograd; R and A as in a Prototype.
template <typename R, typename... A>
struct Below : c10::OperatorKernel {
  explicit Below(OpInfo* info) : info(info) {}
  OpInfo* info;

  R operator()(c10::DispatchKeySet keys, A... arguments) const {
    at::Tensor result;
    if (!record_if_known(*info, result, arguments...)) result = go_on(keys, arguments...);
    if constexpr (std::is_reference_v<R>) {
      return first_of(arguments...);
    } else {
      return result;
    }
  }

  // Apart: the short way is short.
  [[gnu::noinline]] at::Tensor go_on(c10::DispatchKeySet keys, A... arguments) const {
    if constexpr (!std::is_reference_v<R>) {
      if ((is_single(arguments) && ...) && run_now_here(*info)) {
        Paused paused;
        return info->op.typed<R(A...)>().redispatch(keys.remove_backend(kBit), arguments...);
      }
    }
    Stack stack = c10::impl::boxArgs<A...>(arguments...);
    see(*info, keys, &stack);
    return std::move(stack.back()).toTensor();
  }
};

// At autograd's key; `autograd` is torch's own kernel there.
template <typename R, typename... A>
struct Above : c10::OperatorKernel {
  Above(OpInfo* info, c10::KernelFunction autograd) : info(info), autograd(std::move(autograd)) {}
  OpInfo* info;
  c10::KernelFunction autograd;

  R operator()(c10::DispatchKeySet keys, A... arguments) const {
    at::Tensor result;
    if (goes_to_backend(keys) && (has_no_gradient(arguments) && ...) &&
        record_if_known(*info, result, arguments...)) {
      if constexpr (std::is_reference_v<R>) {
        auto& written = first_of(arguments...);
        // as torch's own kernel between autograd and the backend does
        if (keys.has(c10::DispatchKey::ADInplaceOrView))
          written.unsafeGetTensorImpl()->bump_version();
        return written;
      } else {
        return result;
      }
    }
    return autograd.call<R, A...>(info->op, keys, std::forward<A>(arguments)...);
  }
};

// Below autograd, for ops on lists: boxing a list takes as long as an op on each of its tensors.
template <typename R, typename... A>
struct OnLists : c10::OperatorKernel {
  explicit OnLists(OpInfo* info) : info(info), op(info->op.typed<R(A...)>()) {}
  OpInfo* info;
  c10::TypedOperatorHandle<R(A...)> op;

  R operator()(c10::DispatchKeySet keys, A... arguments) const {
    if (info->op_class == OpClass::kDescend && session_here())
      return op.redispatch(keys.remove_backend(kBit), arguments...);
    Stack stack = c10::impl::boxArgs<A...>(arguments...);
    see(*info, keys, &stack);
    if constexpr (!std::is_void_v<R>) return stack.back().to<R>();
  }
};

// Below autograd, for ops that return views of their first argument.
template <typename R, typename First, typename... A>
struct OnViews : c10::OperatorKernel {
  explicit OnViews(OpInfo* info) : info(info), op(info->op.typed<R(First, A...)>()) {}
  OpInfo* info;
  c10::TypedOperatorHandle<R(First, A...)> op;

  R operator()(c10::DispatchKeySet keys, First self, A... arguments) const {
    if (info->op_class != OpClass::kMetadata || claims_are_due()) {
      Stack stack = c10::impl::boxArgs<First, A...>(self, arguments...);
      see(*info, keys, &stack);
      return stack.back().to<R>();
    }
    OnMetadata on_metadata;
    on_metadata.reads(self);
    R result = [&] {
      Paused paused;
      return op.redispatch(keys.remove_backend(kBit), self, arguments...);
    }();
    if constexpr (std::is_same_v<R, at::Tensor>) {
      on_metadata.gave(result);
    } else {
      for (const at::Tensor& tensor : result) on_metadata.gave(tensor);
    }
    return result;
  }
};

// Below autograd, for item().
struct Look : c10::OperatorKernel {
  explicit Look(OpInfo* info) : info(info) {}
  OpInfo* info;

  at::Scalar operator()(c10::DispatchKeySet keys, const at::Tensor& tensor) const {
    if (!is_look(*info)) {
      Stack stack{tensor};
      see(*info, keys, &stack);
      return stack.back().toScalar();
    }
    look(*info, tensor);
    Paused paused;
    return info->op.typed<at::Scalar(const at::Tensor&)>().redispatch(keys.remove_backend(kBit),
                                                                      tensor);
  }
};

// SafeKernelFunction keeps its kernel private.
template <auto kMember>
struct OpenMember {
  friend auto kernel_member(c10::SafeKernelFunction*) { return kMember; }
};
auto kernel_member(c10::SafeKernelFunction*);
template struct OpenMember<&c10::SafeKernelFunction::kernel_>;

template <typename Kernel>
void put(const OpInfo& info, c10::DispatchKey key, std::unique_ptr<Kernel> kernel,
         Registrations& registrations) {
  registrations.push_back(c10::Dispatcher::singleton().registerImpl(
      info.op.operator_name(), key,
      c10::KernelFunction::makeFromUnboxedFunctor<false, Kernel>(std::move(kernel)), std::nullopt,
      nullptr, "torchy"));
}

template <typename R, typename... A>
void register_typed(OpInfo* info, Registrations& registrations) {
  using c10::DispatchKey;
  const c10::OperatorHandle& op = info->op;
  static_cast<void>(op.typed<R(A...)>());  // raises if the op has another signature
  put(*info, DispatchKey::PrivateUse3, std::make_unique<Below<R, A...>>(info), registrations);
  if (!op.hasKernelForDispatchKey(DispatchKey::AutogradCPU) &&
      op.hasKernelForDispatchKey(DispatchKey::Autograd)) {
    const auto safe = op.getComputedKernelForDispatchKey(DispatchKey::AutogradCPU);
    const c10::KernelFunction& own =
        safe.*kernel_member(static_cast<c10::SafeKernelFunction*>(nullptr));
    put(*info, DispatchKey::AutogradPrivateUse3, std::make_unique<Above<R, A...>>(info, own),
        registrations);
  }
  info->typed = true;
}

}  // namespace

void specialize(OpInfo* info, Registrations& registrations) {
  if (info->name == kItem)
    return put(*info, c10::DispatchKey::PrivateUse3, std::make_unique<Look>(info), registrations);
  try {
    const auto& schema = info->op.schema();
    prototypes::Views::visit(schema, [&]<typename R, typename... A>(Prototype<R, A...>) {
      put(*info, c10::DispatchKey::PrivateUse3, std::make_unique<OnViews<R, A...>>(info),
          registrations);
    });
    prototypes::Lists::visit(schema, [&]<typename R, typename... A>(Prototype<R, A...>) {
      put(*info, c10::DispatchKey::PrivateUse3, std::make_unique<OnLists<R, A...>>(info),
          registrations);
    });
    info->caller = caller_of(info->op);
    prototypes::Single::visit(schema, [&]<typename R, typename... A>(Prototype<R, A...>) {
      register_typed<R, A...>(info, registrations);
    });
  } catch (const c10::Error&) {  // the same letters, but other types: it arrives boxed
    info->typed = false;
  }
}

}  // namespace torchy
