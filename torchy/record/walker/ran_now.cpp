#include "ran_now.h"

#include <algorithm>
#include <exception>
#include <random>

#include "session.h"
#include "source.h"

namespace torchy {

namespace {

RanNow::Key without_line(const RanNow::Key& key) {
  return {std::get<0>(key), Lines::kUnknown, std::get<2>(key)};
}

// From 1 to twice as many less one, each as likely: what happens every so often is not favoured.
int64_t about(int64_t many) {
  thread_local std::minstd_rand random;
  return std::uniform_int_distribution<int64_t>(1, 2 * many - 1)(random);
}

}  // namespace

void RanNow::add(const Key& key, const Sum& sum, int64_t epoch) {
  forget_older_lines(epoch);
  merge(epoch < epoch_ ? without_line(key) : key, sum);
}

RanNow::Sums RanNow::take(int64_t epoch) {
  forget_older_lines(epoch);
  return std::exchange(sums_, {});
}

void RanNow::forget_older_lines(int64_t epoch) {
  if (epoch <= epoch_) return;
  epoch_ = epoch;
  for (const auto& [key, sum] : std::exchange(sums_, {})) merge(without_line(key), sum);
}

void RanNow::merge(const Key& key, const Sum& sum) {
  const bool full = sums_.size() >= kMost && !sums_.contains(key);
  Sum& all = sums_[full ? without_line(key) : key];
  if (all.count == 0 || sum.began < all.began) all.began = sum.began;
  all.count += sum.count;
  all.nanoseconds += sum.nanoseconds;
}

NotedNow::NotedNow(const Session* session, OpInfo& info, WhyNow why) {
  if (!session || session != this_session.get()) return;
  if (info.ran_in.exchange(session->id, std::memory_order_relaxed) != session->id)
    info.ran_now = info.noted = info.noted_next = 0;
  const int64_t now = ++info.ran_now;
  if (now < info.noted_next) return;
  stands_for_ = std::max<int64_t>(1, now - info.noted.exchange(now));  // threads may get mixed up
  info.noted_next = now + (now < kAll ? 1 : about(kOneIn));
  session_ = this_session;
  info_ = &info;
  why_ = why;
  raising_ = std::uncaught_exceptions();
  began_ = std::chrono::steady_clock::now();
}

NotedNow::~NotedNow() {
  if (!session_ || std::uncaught_exceptions() > raising_) return;
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - began_;
  const int64_t epoch = registry().epoch;
  const int64_t line = where_here().first;
  const Lock lock(shared_mutex);
  const RanNow::Sum sum{nanoseconds_of(began_), stands_for_, stands_for_ * took.count()};
  session_->ran_now.add({info_, line, why_}, sum, epoch);
}

}  // namespace torchy
