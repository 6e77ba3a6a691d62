#include "draws.h"

#include <ATen/EmptyTensor.h>

#include <array>
#include <atomic>
#include <cmath>
#include <mutex>
#include <optional>

#include "caller.h"
#include "laws.h"
#include "prototypes.h"
#include "ran_now.h"
#include "see.h"

namespace torchy {

namespace {

// How the numbers of an op and a dtype are drawn. Eager's formulas differ between processors and
// versions: what gives its bits is tried out.
enum class How : int8_t { kUnknown, kPlain, kWide, kAsEager };

constexpr int64_t kFewest = 256;  // elements: less takes eager no longer than copying the state

bool has_wide() {
#ifdef TORCHY_WIDE
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

template <typename Law>
void fill_as(How how, const Law& law, Twister& words, typename Law::Out* out, int64_t count) {
#ifdef TORCHY_WIDE
  if (how == How::kWide) return fill_wide(law, words, out, count);
#endif
  fill(law, words, out, count);
}

template <typename... T>
bool has_type(const at::Tensor& tensor) {
  return ((tensor.scalar_type() == c10::CppTypeToScalarType<T>::value) || ...);
}

// Calls f with the memory of a tensor whose type is one of those.
template <typename... T, typename F>
void with_memory(const at::Tensor& tensor, const F& f) {
  const auto one = [&]<typename Type>(std::type_identity<Type>) {
    if (has_type<Type>(tensor)) f(tensor.mutable_data_ptr<Type>());
  };
  (one(std::type_identity<T>()), ...);
}

// The ops: what is left to eager, which may raise; how a tensor is filled; and with which numbers
// that is tried.

struct ByProbability {
  static constexpr const char* kName = "aten::bernoulli_.float";
  static constexpr int64_t kTried = 2'000;

  static bool serves(How /*how*/, const at::Tensor& self, double probability) {
    return probability >= 0 && probability <= 1 && has_type<float, double, bool>(self);
  }
  static void fill(How how, Twister& words, const at::Tensor& self, double probability) {
    with_memory<float, double, bool>(self, [&]<typename T>(T* out) {
      fill_as(how, Bernoulli<T>(probability), words, out, self.numel());
    });
  }
  template <typename F>
  static void each_try(const F& f) {
    f(0.3);
    f(0.9);
  }
};

struct ByProbabilities {
  static constexpr const char* kName = "aten::bernoulli_.Tensor";
  static constexpr int64_t kTried = 2'000;

  static bool serves(How /*how*/, const at::Tensor& self, const at::Tensor& given) {
    if (!has_type<float>(self) || !has_type<float>(given) || given.sizes() != self.sizes() ||
        !given.is_contiguous() || given.is_alias_of(self) || given._is_zerotensor())
      return false;
    const auto* probabilities = given.const_data_ptr<float>();
    int all = 1;
#pragma omp simd reduction(& : all)
    for (int64_t i = 0; i < given.numel(); ++i)
      all &= static_cast<int>(probabilities[i] >= 0) & static_cast<int>(probabilities[i] <= 1);
    return all != 0;
  }
  static void fill(How how, Twister& words, const at::Tensor& self, const at::Tensor& given) {
    const BernoulliOf law{given.const_data_ptr<float>()};
    fill_as(how, law, words, self.mutable_data_ptr<float>(), self.numel());
  }
  template <typename F>
  static void each_try(const F& f) {
    const at::Tensor given = at::detail::empty_cpu({kTried}, c10::kFloat);
    auto* const out = given.mutable_data_ptr<float>();
    for (int64_t i = 0; i < kTried; ++i)
      out[i] = static_cast<float>(i) / static_cast<float>(kTried - 1);
    f(given);
  }
};

struct BetweenNumbers {
  static constexpr const char* kName = "aten::uniform_";
  static constexpr int64_t kTried = 2'000;

  static bool serves(How /*how*/, const at::Tensor& self, double from, double to) {
    constexpr double kLarge = 1e30;  // eager raises where a dtype cannot hold the difference
    return -kLarge < from && from <= to && to < kLarge && has_type<float, double>(self);
  }
  static void fill(How how, Twister& words, const at::Tensor& self, double from, double to) {
    with_memory<float, double>(self, [&]<typename T>(T* out) {
      const Uniform<T> law{static_cast<T>(from), static_cast<T>(to)};
      fill_as(how, law, words, out, self.numel());
    });
  }
  template <typename F>
  static void each_try(const F& f) {
    f(0.0, 1.0);
    f(-1.3, 2.9);
  }
};

struct AroundMean {
  static constexpr const char* kName = "aten::normal_";
  static constexpr int64_t kTried = 8'005;  // logarithms and sines, too

  static bool serves(How how, const at::Tensor& self, double /*mean*/, double std) {
    return how == How::kWide && std >= 0 && has_type<float>(self);
  }
  static void fill(How /*how*/, Twister& words, const at::Tensor& self, double mean, double std) {
#ifdef TORCHY_WIDE
    const Normal law{static_cast<float>(mean), static_cast<float>(std)};
    fill_wide(law, words, self.mutable_data_ptr<float>(), self.numel());
#endif
  }
  template <typename F>
  static void each_try(const F& f) {
    f(0.0, 1.0);
    f(0.3, 1.7);
  }
};

bool same_state(at::CPUGeneratorImpl& one, at::CPUGeneratorImpl& other) {
  const auto a = one.engine().data(), b = other.engine().data();
  return a.left_ == b.left_ && a.next_ == b.next_ && a.state_ == b.state_ &&
         one.next_float_normal_sample() == other.next_float_normal_sample() &&
         one.next_double_normal_sample() == other.next_double_normal_sample();
}

// Below autograd, for an op that takes A and a generator beside the tensor that it fills; `own` is
// the CPU's kernel.
template <typename Op, typename... A>
struct Draw : c10::OperatorKernel {
  Draw(OpInfo* info, c10::KernelFunction own) : info(info), own(std::move(own)) {}
  OpInfo* info;
  c10::KernelFunction own;
  using Generator = std::optional<at::Generator>;

  at::Tensor& operator()(c10::DispatchKeySet keys, at::Tensor& self, A... numbers,
                         Generator generator) {
    Stack stack = c10::impl::boxArgs<at::Tensor&, A..., Generator>(self, numbers..., generator);
    if (!draw(stack, self, numbers..., generator)) see(*info, keys, &stack);
    return self;
  }

 private:
  bool draw(const Stack& stack, const at::Tensor& self, const A&... numbers,
            const Generator& given) {
    if (class_of(*info) != OpClass::kDraw) return false;
    Session* const session = recording_here();
    if (!session || session->hunts || session->passes_by(*info)) return false;
    if (!self.defined() || self.numel() < kFewest || !self.is_contiguous()) return false;
    auto* const generator = generator_of(given);
    const How how = generator ? how_of(self.scalar_type()) : How::kAsEager;
    if (how == How::kAsEager) return false;
    make_room();
    settle_arguments(*info, stack);
    if (!Op::serves(how, self, numbers...)) return false;
    ++session->counters.drawn;
    count_run_now(*session);
    const NotedNow noted(session, *info, WhyNow::kPolicy);
    return fill(how, *generator, self, numbers...);
  }

  // The generator that an op draws from; null if it is none of torch's own.
  static at::CPUGeneratorImpl* generator_of(const Generator& given) {
    const bool own = given && given->defined();
    const at::Generator& generator = own ? *given : at::detail::getDefaultCPUGenerator();
    return dynamic_cast<at::CPUGeneratorImpl*>(generator.unsafeGetGeneratorImpl());
  }

  // False: nothing has been drawn.
  static bool fill(How how, at::CPUGeneratorImpl& generator, const at::Tensor& self,
                   const A&... numbers) {
    const std::lock_guard<std::mutex> lock(generator.mutex_);
    Twister words(generator);
    if (!words.valid()) return false;
    Op::fill(how, words, self, numbers...);
    words.give_to(generator);
    return true;
  }

  How how_of(c10::ScalarType dtype) {
    auto& known = hows_[static_cast<size_t>(dtype)];
    How how = known.load(std::memory_order_relaxed);
    if (how == How::kUnknown) known.store(how = try_out(dtype), std::memory_order_relaxed);
    return how;
  }

  // Finds what gives eager's bits, from states of all kinds, and leaves the same state.
  How try_out(c10::ScalarType dtype) const {
    const Paused paused;
    const CallMode mode;
    for (const How how : {How::kWide, How::kPlain}) {
      if (how == How::kWide && !has_wide()) continue;
      const at::Generator ours = at::detail::createCPUGenerator();
      const at::Generator theirs = at::detail::createCPUGenerator();
      auto* const our_state = ours.get<at::CPUGeneratorImpl>();
      int tried = 0, agreed = 0;
      Op::each_try([&](A... numbers) {
        ++tried;
        at::Tensor drawn = at::detail::empty_cpu({Op::kTried}, dtype);
        if (!Op::serves(how, drawn, numbers...)) return;
        fill(how, *our_state, drawn, numbers...);
        at::Tensor expected = at::detail::empty_cpu({Op::kTried}, dtype);
        own.call<at::Tensor&, at::Tensor&, A..., Generator>(
            info->op, c10::DispatchKeySet(c10::DispatchKey::CPU), expected, numbers..., theirs);
        const bool same =
            std::memcmp(drawn.const_data_ptr(), expected.const_data_ptr(), drawn.nbytes()) == 0;
        if (same && same_state(*our_state, *theirs.get<at::CPUGeneratorImpl>())) ++agreed;
      });
      if (agreed == tried) return how;
    }
    return How::kAsEager;
  }

  std::array<std::atomic<How>, static_cast<size_t>(c10::ScalarType::NumOptions)> hows_ = {};
};

// Gives an op its kernel, if it is that one.
template <typename Op, typename... A>
bool specialize_draw(OpInfo* info, Registrations& registrations) {
  if (info->name != Op::kName) return false;
  static_cast<void>(info->op.typed<at::Tensor&(at::Tensor&, A..., std::optional<at::Generator>)>());
  auto own = own_kernel(info->op, c10::DispatchKey::CPU);
  put(*info, c10::DispatchKey::PrivateUse3, std::make_unique<Draw<Op, A...>>(info, std::move(own)),
      registrations);
  return true;
}

}  // namespace

bool is_draw(const OpInfo& info) {
  const auto is = [&](const char* name) { return info.name == name; };
  return is(ByProbability::kName) || is(ByProbabilities::kName) || is(BetweenNumbers::kName) ||
         is(AroundMean::kName);
}

bool makes_draw(const OpInfo& info) {
  const auto is = [&](const char* name) { return info.name == name; };
  return is("aten::rand") || is("aten::rand.generator") || is("aten::randn") ||
         is("aten::randn.generator") || is("aten::normal.float_float");
}

bool specialize_draws(OpInfo* info, Registrations& registrations) {
  return specialize_draw<ByProbability, double>(info, registrations) ||
         specialize_draw<ByProbabilities, const at::Tensor&>(info, registrations) ||
         specialize_draw<BetweenNumbers, double, double>(info, registrations) ||
         specialize_draw<AroundMean, double, double>(info, registrations);
}

}  // namespace torchy
