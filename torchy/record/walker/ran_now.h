// Which ops of a session ran at once: where, why, how often and how long. Told with the log.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <tuple>

#include "codes.h"
#include "trie.h"

namespace torchy {

struct Session;

// By op, line and reason. Bounded. Lines are forgotten with the places.
class RanNow {
 public:
  struct Sum {
    int64_t began = 0;  // the first of them
    int64_t count = 0, nanoseconds = 0;
  };
  using Key = std::tuple<const OpInfo*, int64_t, WhyNow>;  // the line: see Lines
  using Sums = std::map<Key, Sum>;

  void add(const Key& key, const Sum& sum, int64_t epoch);

  // Gives away all that is there.
  Sums take(int64_t epoch);

 private:
  void forget_older_lines(int64_t epoch);
  void merge(const Key& key, const Sum& sum);

  static constexpr size_t kMost = 1000;
  Sums sums_;
  int64_t epoch_ = 0;
};

// Notes an op that runs at once, from its birth to its end, unless it raises. Of each op of a
// session the first ones are noted, then one now and then, at random, which stands for those before
// it: finding its line takes a microsecond. That is done after the op, since it may run the
// program's finalizers: what they record must not come between an op and what has been computed
// for it.
class NotedNow {
 public:
  // `session`: the calling thread's; none: nothing is noted.
  NotedNow(const Session* session, OpInfo& info, WhyNow why);
  ~NotedNow();
  NotedNow(const NotedNow&) = delete;
  NotedNow& operator=(const NotedNow&) = delete;

 private:
  static constexpr int64_t kAll = 64, kOneIn = 16;  // on the average
  std::shared_ptr<Session> session_;                // null: not noted
  const OpInfo* info_ = nullptr;
  WhyNow why_ = WhyNow::kPolicy;
  int64_t stands_for_ = 1;
  int raising_ = 0;  // exceptions, at its birth
  std::chrono::steady_clock::time_point began_;
};

}  // namespace torchy
