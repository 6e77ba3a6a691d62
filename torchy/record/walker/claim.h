// Which ops arrive: those that the CPU serves, of every namespace, also those registered later.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mutex.h"
#include "see.h"
#include "typed.h"

namespace torchy {

OpInfo* info_of(const c10::OperatorHandle& op);

// Serves what has no kernel of its own for the bit: ops registered after the walker was loaded.
inline void see_unclaimed(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  see(*info_of(op), keys, stack);
}

// Sparse, quantized and nested tensors: nothing inside their kernels is the program's own op.
void pass_whole(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// Tells which ops have been registered since it was last asked: it begins with all of them.
class News : public c10::OpRegistrationListener {
 public:
  void onOperatorRegistered(const c10::OperatorHandle& op) override {
    const Lock lock(box().mutex);
    box().names.push_back(op.operator_name());
    box().any = true;
  }
  void onOperatorDeregistered(const c10::OperatorHandle&) override {}

  static Mutex& mutex() { return box().mutex; }

  static bool any() { return box().any.load(std::memory_order_relaxed); }

  static std::vector<c10::OperatorName> take() {
    const Lock lock(box().mutex);
    box().any = false;
    return std::exchange(box().names, {});
  }

 private:
  struct Box {
    Mutex mutex;
    std::atomic<bool> any{false};
    std::vector<c10::OperatorName> names TORCHY_GUARDED_BY(mutex);
  };
  static Box& box() {
    static Box* instance = std::make_unique<Box>().release();
    return *instance;
  }
};

class Claims {
 public:
  Claims();

  // Claims what is new. An op whose kernels are not there yet is looked at again, for a while.
  void absorb();

  bool due() const { return News::any() || any_waiting_.load(std::memory_order_relaxed); }

  Mutex& mutex() { return mutex_; }

  // An op has got another kernel, or lost one: the policy is asked about it again. What autograd's
  // kernel does with its operands is not known, nor for how long it is there.
  void renew(const c10::OperatorName& name);

 private:
  static constexpr int kPatience = 64;  // ops seen after an op's registration

  // A fallback only serves ops that have no kernel of their own for the backend. Those with a
  // composite kernel would run that, decomposed, with other results than on the CPU. So each op
  // that the CPU serves is claimed.
  bool claim(const c10::OperatorHandle& op) TORCHY_REQUIRES(mutex_);

  static bool is_specialized(const c10::OperatorHandle& op);

  static bool has_tensors(const c10::OperatorHandle& op);

  static bool has_out(const c10::OperatorHandle& op);

  bool is_new(const c10::OperatorName& name, c10::DispatchKey key) TORCHY_REQUIRES(mutex_) {
    return claimed_.insert(c10::toString(name) + "/" + c10::toString(key)).second;
  }

  void put(const c10::OperatorHandle& op, c10::DispatchKey key, torch::CppFunction&& function)
      TORCHY_REQUIRES(mutex_);

  Mutex mutex_;
  std::vector<std::pair<c10::OperatorName, int>> waiting_ TORCHY_GUARDED_BY(mutex_);
  std::atomic<bool> any_waiting_{false};
  std::unordered_set<std::string> claimed_ TORCHY_GUARDED_BY(mutex_);
  std::unordered_set<c10::OperatorName> renewed_ TORCHY_GUARDED_BY(mutex_);
  std::unordered_set<c10::OperatorName> specialized_ TORCHY_GUARDED_BY(mutex_);
  Registrations registrations_ TORCHY_GUARDED_BY(mutex_);
  std::unordered_map<std::string, std::unique_ptr<torch::Library>> libraries_
      TORCHY_GUARDED_BY(mutex_);
  c10::RegistrationHandleRAII listening_;
};

inline Claims& claims() {
  static Claims* instance = std::make_unique<Claims>().release();
  return *instance;
}

inline std::atomic<bool>& loaded() {
  static std::atomic<bool> value{false};
  return value;
}

inline void claim_ops() {
  claims().absorb();
  loaded().store(true, std::memory_order_release);
}

}  // namespace torchy
