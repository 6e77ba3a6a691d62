// Looks at memory: what tells contents apart, and what is no finite number.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <array>
#include <cstdint>

namespace torchy {

// 128 bits that tell contents apart, the same on all machines and for any number of threads: the
// multiplications of wyhash (Wang Yi, https://github.com/wangyi-fudan/wyhash), in chunks of 1 MiB.
std::array<uint64_t, 2> hash_of(const char* data, size_t bytes);

// What is among numbers that is not finite.
enum Odd : int { kNone = 0, kNaN = 1, kInfinity = 2 };

// What is among the elements of a strided window; kNone for dtypes that have finite numbers only.
int odd_among(const char* data, c10::ScalarType dtype, c10::IntArrayRef sizes,
              c10::IntArrayRef strides);

// Whether a byte is not zero.
bool any_set(const char* data, size_t bytes);

}  // namespace torchy
