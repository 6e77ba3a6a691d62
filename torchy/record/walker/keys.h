// The backend bit: who carries it, which thread has it on.
//
// The dispatcher picks the highest backend bit of (the tensors' keys | the thread's included keys).
// PrivateUse3 is the highest but Meta, and nobody uses it. DispatchKeySet's minus does not take
// away backend bits; remove_backend does.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <atomic>

namespace torchy {

constexpr auto kBit = c10::BackendComponent::PrivateUse3Bit;

// TensorImpl offers no way to add a backend bit. A derived class may name the protected member.
struct KeyAccess : c10::TensorImpl {
  static c10::DispatchKeySet& of(c10::TensorImpl& impl) { return impl.*(&KeyAccess::key_set_); }
};

inline bool carries_bit(const c10::TensorImpl& impl) { return impl.key_set().has_backend(kBit); }

// Other threads read the keys without a lock: what comes before a change of the bit stays before.
inline void give_bit(c10::TensorImpl& impl) {
  auto& keys = KeyAccess::of(impl);
  keys = keys | c10::DispatchKeySet(kBit);
  std::atomic_thread_fence(std::memory_order_release);
}

inline void take_bit(c10::TensorImpl& impl) {
  std::atomic_thread_fence(std::memory_order_release);
  auto& keys = KeyAccess::of(impl);
  keys = keys.remove_backend(kBit);
}

inline bool thread_has_bit() {
  return c10::impl::tls_local_dispatch_key_set().included_.has_backend(kBit);
}

// torch.jit.trace wants the ops inside of the one that arrives: those that it records itself come
// here untraced.
inline bool thread_is_traced() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer);
}

inline void set_thread_bit(bool on) {
  auto keys = c10::impl::tls_local_dispatch_key_set();
  keys.included_ =
      on ? keys.included_ | c10::DispatchKeySet(kBit) : keys.included_.remove_backend(kBit);
  c10::impl::_force_tls_local_dispatch_key_set(keys);
}

// Ops that run while one of these is alive on this thread are not recorded.
class Paused {
 public:
  Paused() : had_bit_(thread_has_bit()) {
    if (had_bit_) set_thread_bit(false);
    ++depth();
  }
  ~Paused() {
    --depth();
    if (had_bit_) set_thread_bit(true);
  }
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;

  static bool active() { return depth() > 0; }

 private:
  static int& depth() {
    thread_local int value = 0;
    return value;
  }
  bool had_bit_;
};

// What torch's own kernels see below autograd: no autograd, no autocast, no modes, no transforms.
class BelowEverything {
 public:
  BelowEverything() : before_(c10::impl::tls_local_dispatch_key_set()) {
    c10::impl::LocalDispatchKeySet bare = before_;
    bare.included_ = c10::default_included_set;
    bare.excluded_ = c10::autograd_dispatch_keyset | c10::autocast_dispatch_keyset |
                     c10::DispatchKeySet(
                         {c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::Python,
                          c10::DispatchKey::PythonTLSSnapshot, c10::DispatchKey::PythonDispatcher,
                          c10::DispatchKey::FuncTorchDynamicLayerBackMode,
                          c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
                          c10::DispatchKey::PreDispatch, c10::DispatchKey::Functionalize});
    c10::impl::_force_tls_local_dispatch_key_set(bare);
  }
  ~BelowEverything() { c10::impl::_force_tls_local_dispatch_key_set(before_); }
  BelowEverything(const BelowEverything&) = delete;
  BelowEverything& operator=(const BelowEverything&) = delete;

 private:
  c10::impl::LocalDispatchKeySet before_;
};

}  // namespace torchy
