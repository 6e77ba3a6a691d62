// What flushes that the walker has run by themselves leave behind, as raw records: they become
// Python objects when somebody reads the report. And whether recording pays.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trie.h"

namespace torchy {

// One flush, and the bytes that it holds itself: words that are as they were last are shared.
struct Flushed {
  std::shared_ptr<const Script> script;
  int64_t nanoseconds = 0, saved = 0;
  std::shared_ptr<const std::vector<int64_t>> words;
  std::vector<int64_t> numbers_and_times;
  size_t numbers = 0;  // how many
  size_t held = 0;
};

// The newest flushes of a session, and sums of the others. Bounded.
class Log {
 public:
  struct Sum {
    int64_t count = 0, nanoseconds = 0, saved = 0;
  };

  void add(Flushed&& flushed) {
    bytes_ += flushed.held;
    records_.push_back(std::move(flushed));
    while (records_.size() > kMost || bytes_ > kMostBytes) {
      const Flushed& oldest = records_.front();
      Sum& sum = sums_[oldest.script->id];
      ++sum.count;
      sum.nanoseconds += oldest.nanoseconds;
      sum.saved += oldest.saved;
      bytes_ -= oldest.held;
      records_.pop_front();
    }
  }

  bool empty() const { return records_.empty(); }

  // Gives away all that is there.
  std::pair<std::deque<Flushed>, std::unordered_map<int64_t, Sum>> take() {
    bytes_ = 0;
    return {std::exchange(records_, {}), std::exchange(sums_, {})};
  }

 private:
  static constexpr size_t kMost = 1000;  // as many as a report keeps
  static constexpr size_t kMostBytes = size_t{4} << 20;
  std::deque<Flushed> records_;
  std::unordered_map<int64_t, Sum> sums_;  // by script
  size_t bytes_ = 0;
};

// Whether recording pays: what eager would have taken is estimated, so much for each op and for
// each byte that the fused ones move; what Torchy took is measured. Calls of torch's own ops take
// the same either way: they are left out. Seconds.
class Balance {
 public:
  // An op on a few elements, in eager; measured once a process.
  static inline double tiny_op = 1e-6;

  void add(int64_t ops, int64_t bytes_moved, double seconds) {
    eager_ += static_cast<double>(ops) * tiny_op + static_cast<double>(bytes_moved) / kBandwidth;
    ours_ += static_cast<double>(ops) * tiny_op * kRecording + seconds;
    ++flushes_;
  }

  // Whether flushes have cost more than eager would have; forgets the past then and now.
  bool loses() {
    if (flushes_ < kEnoughFlushes || ours_ < kEnoughSeconds) return false;
    const bool lost = ours_ > eager_;
    eager_ = ours_ = 0;
    flushes_ = 0;
    return lost;
  }

  // Whether almost no op has been recorded since this was asked last.
  bool only_walks(int64_t recorded, int64_t run_now) {
    const auto here = static_cast<double>(run_now - run_now_);
    const auto there = static_cast<double>(recorded - recorded_);
    recorded_ = recorded;
    run_now_ = run_now;
    return here > kRunNowShare * (here + there);
  }

 private:
  static constexpr double kBandwidth = 8e9;  // bytes a second through memory: measured
  static constexpr double kRecording = 1.0;  // of a tiny op, at a known place
  static constexpr double kEnoughSeconds = 0.05;
  static constexpr int kEnoughFlushes = 32;
  static constexpr double kRunNowShare = 0.97;
  double eager_ = 0, ours_ = 0;
  int flushes_ = 0;
  int64_t recorded_ = 0, run_now_ = 0;
};

}  // namespace torchy
