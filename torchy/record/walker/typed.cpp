#include "typed.h"

#include <torch/csrc/autograd/variable.h>

#include <type_traits>

#include "caller.h"
#include "draws.h"
#include "expect.h"
#include "interpret.h"
#include "kernels.h"
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
  if (!session || session->passes_by(info)) return false;
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

// Nothing is pending on a tensor, and no trace has to read it any more.
bool is_settled(const at::Tensor& tensor) {
  return tensor.defined() && !carries_bit(*tensor.unsafeGetTensorImpl()) &&
         !watched_storage(tensor);
}
template <typename T>
bool is_settled(const T& /*no tensor*/) {
  return true;
}

// Whether nobody between autograd and the backend wants to see an op: no mode, no transform.
bool goes_to_backend(c10::DispatchKeySet keys) {
  constexpr c10::DispatchKeySet views(c10::DispatchKey::ADInplaceOrView);
  const auto below = (keys & c10::after_autograd_keyset) - views;
  return below.highestFunctionalityKey() == c10::DispatchKey::Dense;
}

// The session that sees an op that may be deferred, and may run now as well; it is counted then.
Session* run_now_here(const OpInfo& info) {
  if (info.op_class != OpClass::kDefer) return nullptr;
  Session* session = session_here();
  if (session && session->hunts) return nullptr;  // its result is looked at: the long way
  if (session) count_run_now(*session);
  return session;
}

template <typename First, typename... Rest>
First& first_of(First& first, Rest&&... /*rest*/) {
  return first;
}

// Below autograd; R and A as in a Prototype. `own` is the CPU's kernel.
template <typename R, typename... A>
struct Below : c10::OperatorKernel {
  Below(OpInfo* info, c10::KernelFunction own) : info(info), own(std::move(own)) {}
  OpInfo* info;
  c10::KernelFunction own;

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
    const bool naps = this_session && this_session->napping && info->op_class == OpClass::kDefer;
    if (naps && (is_settled(arguments) && ...) && writes_own_memory(arguments...))
      return run<R>(keys, arguments...);
    if constexpr (!std::is_reference_v<R>) {
      if (Session* session = (is_single(arguments) && ...) ? run_now_here(*info) : nullptr) {
        const NotedNow noted(session, *info, WhyNow::kSingle);
        return run<R>(keys, arguments...);
      }
    }
    Stack stack = c10::impl::boxArgs<A...>(arguments...);
    see(*info, keys, &stack);
    return std::move(stack.back()).toTensor();
  }

  // What it writes to, if anything, cannot be another storage's memory too.
  static bool writes_own_memory(const A&... arguments) {
    if constexpr (!std::is_reference_v<R>) return true;
    return first_of(arguments...).storage().resizable();
  }

  template <typename Result>
  at::Tensor run(c10::DispatchKeySet keys, A... arguments) const {
    Paused paused;
    return own.call<Result, A...>(info->op, keys.remove_backend(kBit),
                                  std::forward<A>(arguments)...);
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
    Session* session = info->op_class == OpClass::kDescend ? session_here() : nullptr;
    if (session && !session->passes_by(*info))
      return op.redispatch(keys.remove_backend(kBit), arguments...);
    Stack stack = c10::impl::boxArgs<A...>(arguments...);
    see(*info, keys, &stack);
    if constexpr (!std::is_void_v<R>) return stack.back().to<R>();
  }
};

// Below autograd, for ops that return views of their first argument; `own` is the CPU's kernel.
template <typename R, typename First, typename... A>
struct OnViews : c10::OperatorKernel {
  OnViews(OpInfo* info, c10::KernelFunction own) : info(info), own(std::move(own)) {}
  OpInfo* info;
  c10::KernelFunction own;

  R operator()(c10::DispatchKeySet keys, First self, A... arguments) const {
    // most views are of tensors that nobody is waiting for
    if (info->op_class == OpClass::kMetadata && !carries_bit(*self.unsafeGetTensorImpl()) &&
        !carries_all.load(std::memory_order_relaxed))
      return run<R, First, A...>(keys, self, arguments...);
    return go_on(keys, self, arguments...);
  }

  [[gnu::noinline]] R go_on(c10::DispatchKeySet keys, First self, A... arguments) const {
    if (info->op_class != OpClass::kMetadata || claims_are_due()) {
      Stack stack = c10::impl::boxArgs<First, A...>(self, arguments...);
      see(*info, keys, &stack);
      return stack.back().to<R>();
    }
    OnMetadata on_metadata;
    on_metadata.reads(self);
    R result = [&] {
      Paused paused;
      return run<R, First, A...>(keys, self, arguments...);
    }();
    if constexpr (std::is_same_v<R, at::Tensor>) {
      on_metadata.gave(result);
    } else {
      for (const at::Tensor& tensor : result) on_metadata.gave(tensor);
    }
    return result;
  }

  template <typename Result, typename... Arguments>
  Result run(c10::DispatchKeySet keys, Arguments... arguments) const {
    return own.call<Result, Arguments...>(info->op, keys.remove_backend(kBit),
                                          std::forward<Arguments>(arguments)...);
  }
};

// Below autograd, for ops that make a tensor as large as another one, of which they read no more.
template <typename R, typename First, typename... A>
struct OnLikes : c10::OperatorKernel {
  OnLikes(OpInfo* info, c10::KernelFunction own) : info(info), own(std::move(own)) {}
  static constexpr int64_t kNoticedElements = Session::kNoticed / 16;  // of any dtype
  OpInfo* info;
  c10::KernelFunction own;

  R operator()(c10::DispatchKeySet keys, First self, A... arguments) const {
    if (info->op_class == OpClass::kMetadata && self.numel() < kNoticedElements &&
        !carries_all.load(std::memory_order_relaxed)) {
      Paused paused;
      return own.call<R, First, A...>(info->op, keys.remove_backend(kBit), self,
                                      std::forward<A>(arguments)...);
    }
    Stack stack = c10::impl::boxArgs<First, A...>(self, arguments...);
    see(*info, keys, &stack);
    return stack.back().to<R>();
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

template <typename R, typename... A>
void register_typed(OpInfo* info, Registrations& registrations) {
  using c10::DispatchKey;
  const c10::OperatorHandle& op = info->op;
  static_cast<void>(op.typed<R(A...)>());  // raises if the op has another signature
  put(*info, DispatchKey::PrivateUse3,
      std::make_unique<Below<R, A...>>(info, own_kernel(op, DispatchKey::CPU)), registrations);
  if (!op.hasKernelForDispatchKey(DispatchKey::AutogradCPU) &&
      op.hasKernelForDispatchKey(DispatchKey::Autograd)) {
    auto own = own_kernel(op, DispatchKey::AutogradCPU);
    put(*info, DispatchKey::AutogradPrivateUse3,
        std::make_unique<Above<R, A...>>(info, std::move(own)), registrations);
  }
  info->typed = true;
}

}  // namespace

void specialize(OpInfo* info, Registrations& registrations) {
  if (info->name == kItem)
    return put(*info, c10::DispatchKey::PrivateUse3, std::make_unique<Look>(info), registrations);
  try {
    if (specialize_draws(info, registrations)) return;
    const auto& schema = info->op.schema();
    prototypes::Views::visit(schema, [&]<typename R, typename... A>(Prototype<R, A...>) {
      auto own = own_kernel(info->op, c10::DispatchKey::CPU);
      put(*info, c10::DispatchKey::PrivateUse3,
          std::make_unique<OnViews<R, A...>>(info, std::move(own)), registrations);
    });
    prototypes::Likes::visit(schema, [&]<typename R, typename... A>(Prototype<R, A...>) {
      auto own = own_kernel(info->op, c10::DispatchKey::CPU);
      put(*info, c10::DispatchKey::PrivateUse3,
          std::make_unique<OnLikes<R, A...>>(info, std::move(own)), registrations);
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
