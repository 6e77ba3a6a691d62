// The words of torch's generator on the CPU, a Mersenne twister, by the block: as `random()` gives
// them, one by one.
#pragma once

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace torchy {

// M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998).
class Twister {
 public:
  explicit Twister(at::CPUGeneratorImpl& generator)
      : engine_(generator.engine()), data_(engine_.data()), left_(data_.left_ - 1) {}

  // A state may be set to anything.
  bool valid() const { return left_ >= 0 && left_ + data_.next_ <= kWords; }

  // Puts the next words at `to`.
  [[gnu::always_inline]] void take(uint32_t* to, int64_t count) {
    while (count > 0) {
      if (left_ == 0) {
        twist(data_.state_);
        data_.next_ = 0;
        left_ = kWords;
      }
      const int64_t now = std::min(left_, count);
      temper(data_.state_.data() + data_.next_, to, now);
      data_.next_ += static_cast<uint32_t>(now);
      left_ -= now;
      to += now;
      count -= now;
    }
  }

  // Has a generator go on after the last word that has been taken.
  void give_to(at::CPUGeneratorImpl& generator) {
    data_.left_ = static_cast<int>(left_) + 1;
    engine_.set_data(data_);
    generator.set_engine(engine_);
  }

 private:
  static constexpr int64_t kWords = 624, kMiddle = 397;
  using State = std::array<uint32_t, kWords>;

  // From two neighbours of a state, what the next state has at the place of the first but for a
  // third one.
  [[gnu::always_inline]] static uint32_t mix(uint32_t word, uint32_t next) {
    return (((word & 0x80000000U) | (next & 0x7fffffffU)) >> 1) ^ (-(next & 1U) & 0x9908b0dfU);
  }

  // In two states, so that a loop writes nothing that it reads.
  [[gnu::always_inline]] static void twist(State& state) {
    State before;
    std::memcpy(before.data(), state.data(), sizeof(State));
    const uint32_t* const old = before.data();
    uint32_t* const made = state.data();
#pragma omp simd
    for (int64_t i = 0; i < kWords - kMiddle; ++i)
      made[i] = old[i + kMiddle] ^ mix(old[i], old[i + 1]);
#pragma omp simd safelen(16)  // what is read has been written 227 words before
    for (int64_t i = kWords - kMiddle; i < kWords - 1; ++i)
      made[i] = made[i - (kWords - kMiddle)] ^ mix(old[i], old[i + 1]);
    made[kWords - 1] = made[kMiddle - 1] ^ mix(old[kWords - 1], made[0]);
  }

  [[gnu::always_inline]] static void temper(const uint32_t* from, uint32_t* to, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      uint32_t word = from[i];
      word ^= word >> 11;
      word ^= (word << 7) & 0x9d2c5680U;
      word ^= (word << 15) & 0xefc60000U;
      to[i] = word ^ (word >> 18);
    }
  }

  at::mt19937 engine_;
  at::mt19937_data_pod data_;
  int64_t left_;  // before the state has to be twisted
};

}  // namespace torchy
