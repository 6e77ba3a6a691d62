#include "scan.h"

#include <ATen/Parallel.h>
#include <c10/util/SmallVector.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

namespace torchy {

namespace {

constexpr size_t kStreams = 4, kStripe = 16 * kStreams, kChunk = size_t{1} << 20;

// splitmix64 (Steele, Lea, Flood 2014): its finalizer, and numbers to begin with.
constexpr uint64_t mixed(uint64_t word) {
  word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9ull;
  word = (word ^ word >> 27) * 0x94D049BB133111EBull;
  return word ^ word >> 31;
}

constexpr auto kKeys = [] {
  std::array<uint64_t, 2 * kStreams> keys{};
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = mixed((i + 1) * 0x9E3779B97F4A7C15ull);
  return keys;
}();

uint64_t folded(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

using Streams = std::array<uint64_t, kStreams>;

void take(Streams& streams, const char* data) {
  std::array<uint64_t, 2 * kStreams> words;
  std::memcpy(words.data(), data, kStripe);
  for (size_t i = 0; i < kStreams; ++i)
    streams[i] = folded(words[2 * i] ^ kKeys[2 * i], words[2 * i + 1] ^ streams[i]);
}

std::array<uint64_t, 2> hash_of_chunk(const char* data, size_t bytes) {
  Streams streams = {kKeys[1], kKeys[3], kKeys[5], kKeys[7]};
  size_t at = 0;
  for (; at + kStripe <= bytes; at += kStripe) take(streams, data + at);
  if (at < bytes) {
    std::array<char, kStripe> last{};
    std::memcpy(last.data(), data + at, bytes - at);
    take(streams, last.data());
  }
  const uint64_t one = folded(streams[0] ^ bytes, streams[1] ^ kKeys[0]),
                 other = folded(streams[2] ^ kKeys[2], streams[3] ^ kKeys[4]);
  return {folded(one ^ kKeys[6], other ^ kKeys[1]) ^ mixed(streams[0] + streams[2]),
          folded(other ^ kKeys[0], one ^ kKeys[3]) ^ mixed(streams[1] + streams[3])};
}

// Of floating-point numbers: how they look as integers of their size without the sign.
template <typename Word>
struct Float {
  Word infinity;
  static constexpr Word kMask = static_cast<Word>(~(Word{1} << (8 * sizeof(Word) - 1)));

  int among(const char* data, int64_t count, int64_t step) const {
    if (step == 1 && all_finite(data, count)) return kNone;
    int found = kNone;
    for (int64_t i = 0; i < count; ++i) {
      const Word word = at(data, i * step);
      if (word >= infinity) found |= word > infinity ? kNaN : kInfinity;
    }
    return found;
  }

  // Several numbers at a time: one more in the lowest bit of an exponent of ones carries into the
  // sign, which has been masked away, and from nowhere else.
  bool all_finite(const char* data, int64_t count) const {
    constexpr int64_t kNumbers = sizeof(uint64_t) / sizeof(Word);
    uint64_t exponents = 0, ones = 0;
    for (int64_t i = 0; i < kNumbers; ++i) {
      exponents = exponents << (8 * sizeof(Word) % 64) | infinity;
      ones = ones << (8 * sizeof(Word) % 64) | (infinity & (~infinity + 1u));
    }
    uint64_t carried = 0;
    int64_t i = 0;
    for (; i + kNumbers <= count; i += kNumbers) {
      uint64_t words;
      std::memcpy(&words, data + i * static_cast<int64_t>(sizeof(Word)), sizeof(words));
      carried |= (words & exponents) + ones;
    }
    bool finite = (carried & ~exponents & signs()) == 0;
    for (; i < count; ++i) finite &= at(data, i) < infinity;
    return finite;
  }

  static constexpr uint64_t signs() {
    uint64_t signs = 0;
    for (size_t bit = 8 * sizeof(Word) - 1; bit < 64; bit += 8 * sizeof(Word))
      signs |= uint64_t{1} << bit;
    return signs;
  }

  static Word at(const char* data, int64_t index) {
    Word word;
    std::memcpy(&word, data + index * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
    return static_cast<Word>(word & kMask);
  }
};

template <typename Word>
int odd_of(const Float<Word>& kind, const char* data, c10::IntArrayRef sizes,
           c10::IntArrayRef strides, int64_t grain) {
  if (sizes.empty()) return kind.among(data, 1, 1);
  const int64_t size = sizes[0], step = strides[0];
  if (size == 0) return kNone;
  if (step == 0 && size > 1) return odd_of(kind, data, sizes.slice(1), strides.slice(1), grain);
  std::atomic<int> found{kNone};
  const auto bytes = static_cast<int64_t>(sizeof(Word));
  // many elements along the first dimension, or many of what is within it
  const int64_t inner = c10::multiply_integers(sizes.slice(1));
  at::parallel_for(0, size, std::max<int64_t>(1, grain / std::max<int64_t>(1, inner)),
                   [&](int64_t begin, int64_t end) {
                     int here = kNone;
                     if (sizes.size() == 1) {
                       here = kind.among(data + begin * step * bytes, end - begin, step);
                     } else {
                       for (int64_t i = begin; i < end; ++i)
                         here |= odd_of(kind, data + i * step * bytes, sizes.slice(1),
                                        strides.slice(1), INT64_MAX);
                     }
                     found |= here;
                   });
  return found;
}

}  // namespace

std::array<uint64_t, 2> hash_of(const char* data, size_t bytes) {
  if (bytes <= kChunk) return hash_of_chunk(data, bytes);
  const size_t chunks = (bytes + kChunk - 1) / kChunk;
  std::vector<std::array<uint64_t, 2>> hashes(chunks);
  at::parallel_for(0, static_cast<int64_t>(chunks), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      hashes[i] = hash_of_chunk(data + i * kChunk, std::min(kChunk, bytes - i * kChunk));
  });
  const auto all =
      hash_of_chunk(reinterpret_cast<const char*>(hashes.data()), chunks * sizeof(hashes[0]));
  return {mixed(all[0] ^ bytes), mixed(all[1] + bytes)};
}

int odd_among(const char* data, c10::ScalarType dtype, c10::IntArrayRef sizes,
              c10::IntArrayRef strides) {
  constexpr int64_t kGrain = 1 << 18;
  c10::SmallVector<int64_t, 6> order, lengths, steps;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 0) return kNone;
    if (sizes[d] != 1) order.push_back(static_cast<int64_t>(d));
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return strides[static_cast<size_t>(a)] > strides[static_cast<size_t>(b)];
  });
  for (int64_t d : order) {  // outermost in memory first, and merged where they are one run
    const int64_t size = sizes[static_cast<size_t>(d)], step = strides[static_cast<size_t>(d)];
    if (!steps.empty() && steps.back() == size * step) {
      lengths.back() *= size;
      steps.back() = step;
    } else {
      lengths.push_back(size);
      steps.push_back(step);
    }
  }
  if (c10::isComplexType(dtype)) {
    for (int64_t& step : steps) step *= 2;
    lengths.push_back(2);
    steps.push_back(1);
    if (steps.size() > 1 && steps[steps.size() - 2] == 2) {
      lengths[lengths.size() - 2] *= 2;
      steps[steps.size() - 2] = 1;
      lengths.pop_back();
      steps.pop_back();
    }
    dtype = c10::toRealValueType(dtype);
  }
  switch (dtype) {
    case c10::kFloat:
      return odd_of(Float<uint32_t>{0x7F800000}, data, lengths, steps, kGrain);
    case c10::kDouble:
      return odd_of(Float<uint64_t>{0x7FF0000000000000}, data, lengths, steps, kGrain);
    case c10::kHalf:
      return odd_of(Float<uint16_t>{0x7C00}, data, lengths, steps, kGrain);
    case c10::kBFloat16:
      return odd_of(Float<uint16_t>{0x7F80}, data, lengths, steps, kGrain);
    default:
      return kNone;
  }
}

bool any_set(const char* data, size_t bytes) {
  std::atomic<bool> found{false};
  at::parallel_for(0, static_cast<int64_t>(bytes), 1 << 18, [&](int64_t begin, int64_t end) {
    constexpr int64_t kWord = sizeof(uint64_t);
    uint64_t all = 0;
    for (; begin + kWord <= end; begin += kWord) {
      uint64_t word;
      std::memcpy(&word, data + begin, kWord);
      all |= word;
    }
    for (; begin < end; ++begin) all |= static_cast<unsigned char>(data[begin]);
    if (all != 0) found = true;
  });
  return found;
}

}  // namespace torchy
