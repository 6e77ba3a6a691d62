#include "log.h"

namespace torchy {

void Log::add(Flushed&& flushed) {
  bytes_ += flushed.held;
  records_.push_back(std::move(flushed));
  while (records_.size() > kMost || bytes_ > kMostBytes) drop_oldest();
}

std::pair<std::deque<Flushed>, std::unordered_map<int64_t, Log::Sum>> Log::take(int64_t epoch) {
  while (!records_.empty() && records_.front().epoch != epoch) drop_oldest();
  bytes_ = 0;
  return {std::exchange(records_, {}), std::exchange(sums_, {})};
}

void Log::drop_oldest() {
  const Flushed& oldest = records_.front();
  Sum& sum = sums_[oldest.script ? oldest.script->id : kNoScript];
  ++sum.count;
  sum.ops +=
      oldest.script ? oldest.script->ops : static_cast<int64_t>(oldest.unplanned->path.size());
  sum.nanoseconds += oldest.nanoseconds;
  sum.saved += oldest.saved;
  bytes_ -= oldest.held;
  records_.pop_front();
}

void Balance::add(int64_t ops, int64_t bytes_moved, double seconds) {
  eager_ += static_cast<double>(ops) * tiny_op + static_cast<double>(bytes_moved) / kBandwidth;
  ours_ += static_cast<double>(ops) * tiny_op * kRecording + seconds;
  ++flushes_;
}

bool Balance::loses() {
  if (flushes_ < kEnoughFlushes || ours_ < kEnoughSeconds) return false;
  const bool lost = ours_ > eager_;
  eager_ = ours_ = 0;
  flushes_ = 0;
  return lost;
}

bool Balance::only_walks(int64_t recorded, int64_t run_now) {
  const auto here = static_cast<double>(run_now - run_now_);
  const auto there = static_cast<double>(recorded - recorded_);
  recorded_ = recorded;
  run_now_ = run_now;
  return here > kRunNowShare * (here + there);
}

}  // namespace torchy
