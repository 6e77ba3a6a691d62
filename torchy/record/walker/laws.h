// What is made of a generator's words: each law of torch's that is drawn by the block, with
// eager's own formulas (ATen/core/DistributionsHelper.h, ATen/native/cpu/DistributionTemplates.h).
#pragma once

#include <c10/util/MathConstants.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "twister.h"

#if defined(__x86_64__) && __has_include(<ATen/native/cpu/avx_mathfun.h>)
#define TORCHY_WIDE [[gnu::target("avx2,fma")]]
#include <ATen/native/cpu/Intrinsics.h>
// eager's logarithm, sine and cosine of vectors, as that is compiled
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define CPU_CAPABILITY_AVX2
#include <ATen/native/cpu/avx_mathfun.h>
#undef CPU_CAPABILITY_AVX2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace torchy {

// Two words, as torch makes one number of them, and of that its last 53 bits.
[[gnu::always_inline]] inline uint64_t mantissa(const uint32_t* words) {
  uint64_t both = 0;  // the first word in the lower half
  std::memcpy(&both, words, sizeof both);
  return (both & 0x1fffffU) << 32 | both >> 32;
}

// Ones and zeros: a number in [0, 1), compared with a probability.
template <typename T>
struct Bernoulli {
  using Out = T;
  static constexpr int kWords = 2;
  explicit Bernoulli(double probability)
      : below(static_cast<uint64_t>(std::ceil(std::ldexp(probability, 53)))) {}
  uint64_t below;  // exactly: the number is a mantissa times 2^-53

  [[gnu::always_inline]] void operator()(const uint32_t* words, T* out, int64_t count,
                                         int64_t /*first*/) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
      out[i] = static_cast<T>(static_cast<int>(mantissa(words + 2 * i) < below));
  }
};

// The same with a probability for each element.
struct BernoulliOf {
  using Out = float;
  static constexpr int kWords = 1;
  const float* probabilities;  // of the whole tensor

  [[gnu::always_inline]] void operator()(const uint32_t* words, float* out, int64_t count,
                                         int64_t first) const {
    const float* const below = probabilities + first;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i)
      out[i] = static_cast<float>(static_cast<int32_t>(words[i] & 0xffffffU)) * 0x1p-24F < below[i]
                   ? 1.0F
                   : 0.0F;
  }
};

template <typename T>
struct Uniform {
  using Out = T;
  static constexpr int kWords = sizeof(T) / sizeof(uint32_t);
  T from, to;

  [[gnu::always_inline]] static T unit(const uint32_t* words) {
    if constexpr (kWords == 1) {
      return static_cast<T>(static_cast<int32_t>(*words & 0xffffffU)) * static_cast<T>(0x1p-24);
    } else {
      return static_cast<T>(static_cast<int64_t>(mantissa(words))) * static_cast<T>(0x1p-53);
    }
  }

  [[gnu::always_inline]] void operator()(const uint32_t* words, T* out, int64_t count,
                                         int64_t /*first*/) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T value = unit(words + kWords * i) * (to - from) + from;
      out[i] = value == to ? from : value;
    }
  }
};

#ifdef TORCHY_WIDE
// G. Box and M. Muller, "A Note on the Generation of Random Normal Deviates" (1958): of 16 uniform
// numbers eight pairs.
struct Normal {
  static constexpr int kGroup = 16;
  float mean, std;

  TORCHY_WIDE static __m256 unit(const uint32_t* words) {
    const __m256i drawn = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
    const __m256i kept = _mm256_and_si256(drawn, _mm256_set1_epi32(0xffffff));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(kept), _mm256_set1_ps(0x1p-24F));
  }

  TORCHY_WIDE void operator()(const uint32_t* words, float* out) const {
    const __m256 u1 = _mm256_sub_ps(_mm256_set1_ps(1.0F), unit(words)), u2 = unit(words + 8);
    const __m256 log = log256_ps(u1);
    const __m256 radius = _mm256_sqrt_ps(_mm256_mul_ps(_mm256_set1_ps(-2.0F), log));
    const auto two_pi = static_cast<float>(2.0F * c10::pi<double>);
    __m256 sine, cosine;
    sincos256_ps(_mm256_mul_ps(_mm256_set1_ps(two_pi), u2), &sine, &cosine);
    const __m256 wide_std = _mm256_set1_ps(std), wide_mean = _mm256_set1_ps(mean);
    _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_mul_ps(radius, cosine), wide_std, wide_mean));
    _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(_mm256_mul_ps(radius, sine), wide_std, wide_mean));
  }
};
#endif

// Elements whose words are made at a time: a small part of the nearest cache.
constexpr int64_t kDrawn = 1024;

// Each element of its own words.
template <typename Law>
[[gnu::always_inline]] inline void fill(const Law& law, Twister& words, typename Law::Out* out,
                                        int64_t count) {
  alignas(64) uint32_t drawn[kDrawn * Law::kWords];
  for (int64_t at = 0; at < count; at += kDrawn) {
    const int64_t now = std::min(kDrawn, count - at);
    words.take(drawn, now * Law::kWords);
    law(drawn, out + at, now, at);
  }
}

#ifdef TORCHY_WIDE
template <typename Law>
TORCHY_WIDE void fill_wide(const Law& law, Twister& words, typename Law::Out* out, int64_t count) {
  fill(law, words, out, count);
}

// In groups. If elements are left over, the last group's worth of them is drawn anew.
TORCHY_WIDE inline void fill_wide(const Normal& law, Twister& words, float* out, int64_t count) {
  alignas(64) uint32_t drawn[kDrawn];
  for (int64_t at = 0; at < count; at += kDrawn) {
    const int64_t now = std::min(kDrawn, count - at);
    words.take(drawn, now);
    for (int64_t i = 0; i + Normal::kGroup <= now; i += Normal::kGroup)
      law(drawn + i, out + at + i);
  }
  if (count % Normal::kGroup == 0) return;
  words.take(drawn, Normal::kGroup);
  law(drawn, out + count - Normal::kGroup);
}
#endif

}  // namespace torchy
