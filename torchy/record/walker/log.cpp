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

void Balance::add(const Flush& flush, int64_t run_now) {
  const auto ops = static_cast<double>(flush.ops), calls = static_cast<double>(flush.calls);
  eager_ += tiny_op * (ops - calls + kBesideKernel * calls) +
            static_cast<double>(flush.bytes_moved) / kBandwidth;
  ours_ += tiny_op * (kRecording * ops + kPassing * static_cast<double>(run_now - passed_)) +
           flush.seconds;
  passed_ = run_now;
  ++flushes_;
}

bool Balance::loses() {
  if (flushes_ < kEnoughFlushes || ours_ < kEnoughSeconds) return false;
  lost_ = ours_ > eager_ ? lost_ + 1 : 0;
  eager_ = ours_ = 0;
  flushes_ = 0;
  if (lost_ < kEnoughTimes) return false;
  lost_ = 0;
  return true;
}

bool Balance::only_walks(int64_t recorded, int64_t run_now) {
  const auto here = static_cast<double>(run_now - run_now_);
  const auto there = static_cast<double>(recorded - recorded_);
  recorded_ = recorded;
  run_now_ = run_now;
  return here > kRunNowShare * (here + there);
}

}  // namespace torchy
