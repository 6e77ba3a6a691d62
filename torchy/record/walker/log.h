// What flushes that the walker has run by themselves leave behind, as raw records: they become
// Python objects when somebody reads the report. And whether recording pays.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "trie.h"

namespace torchy {

// What Python's perf_counter_ns() would have said.
inline int64_t nanoseconds_of(std::chrono::steady_clock::time_point time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

// What is known of a flush that nobody has planned.
struct Unplanned {
  std::vector<int64_t> path;                   // the nodes' ids
  std::vector<uint8_t> flags;                  // of the slots
  int64_t reason = 0, line = -1, variant = 0;  // the session's: see Script
  std::string text;
};

// One flush, by a script or unplanned, and the bytes that it holds itself: words that are as they
// were last are shared.
struct Flushed {
  std::shared_ptr<const Script> script;
  std::shared_ptr<const Unplanned> unplanned;
  int64_t began = 0;  // by the steady clock
  int64_t nanoseconds = 0, saved = 0;
  std::shared_ptr<const std::vector<int64_t>> words;
  std::vector<int64_t> numbers_and_times;
  size_t numbers = 0;  // how many
  int64_t epoch = 0;   // of the places: see Registry
  size_t held = 0;
};

// The newest flushes of a session, and sums of the others. Bounded.
class Log {
 public:
  struct Sum {
    int64_t count = 0, ops = 0, nanoseconds = 0, saved = 0;
  };

  void add(Flushed&& flushed);

  // Gives away all that is there. What stands on places that have been forgotten only counts.
  std::pair<std::deque<Flushed>, std::unordered_map<int64_t, Sum>> take(int64_t epoch);

 private:
  void drop_oldest();

  static constexpr size_t kMost = 1000;  // as many as a report keeps
  static constexpr size_t kMostBytes = size_t{4} << 20;
  std::deque<Flushed> records_;
  std::unordered_map<int64_t, Sum> sums_;  // by script, those without one together
  size_t bytes_ = 0;
};

// Whether recording pays: what eager would have taken is estimated, so much for each op and for
// each byte that the fused ones move; what Torchy took is measured. What the kernels of called ops
// take is the same either way: it is left out. Seconds.
class Balance {
 public:
  // An op on a few elements, in eager; measured once a process.
  static inline double tiny_op = 1e-6;

  struct Flush {
    int64_t ops = 0, calls = 0;  // of the ops
    int64_t bytes_moved = 0;
    double seconds = 0;  // without those of the calls
  };

  // `run_now`: how many ops the session has seen that ran at once.
  void add(const Flush& flush, int64_t run_now);

  // The same of what runs while flushes are interpreted: it is not weighed.
  void pass(int64_t run_now) { passed_ = run_now; }

  // Whether flushes have cost more than eager would have, a few times in a row: the machine may
  // have been busy once. Forgets the past now and then.
  bool loses();

  // Whether almost no op has been recorded since this was asked last.
  bool only_walks(int64_t recorded, int64_t run_now);

 private:
  static constexpr double kBandwidth = 16e9;  // bytes a second through memory: measured
  // Of a tiny op: recording one at a known place, what it is in eager beside its kernel, and what
  // one that runs at once costs more than there.
  static constexpr double kRecording = 0.55, kBesideKernel = 0.45, kPassing = 0.2;
  static constexpr double kEnoughSeconds = 0.003;
  static constexpr int kEnoughFlushes = 32, kEnoughTimes = 3;
  static constexpr double kRunNowShare = 0.97;
  double eager_ = 0, ours_ = 0;
  int flushes_ = 0;
  int lost_ = 0;  // times in a row
  int64_t passed_ = 0, recorded_ = 0, run_now_ = 0;
};

}  // namespace torchy
