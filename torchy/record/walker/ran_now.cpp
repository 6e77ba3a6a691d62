#include "ran_now.h"

#include "session.h"
#include "source.h"

namespace torchy {

void RanNow::add(const Key& key, const Sum& sum, int64_t epoch) {
  forget_lines_of_other_epochs(epoch);
  merge(key, sum);
}

RanNow::Sums RanNow::take(int64_t epoch) {
  forget_lines_of_other_epochs(epoch);
  return std::exchange(sums_, {});
}

void RanNow::forget_lines_of_other_epochs(int64_t epoch) {
  if (std::exchange(epoch_, epoch) == epoch) return;
  for (const auto& [key, sum] : std::exchange(sums_, {}))
    merge({std::get<0>(key), Lines::kUnknown, std::get<2>(key)}, sum);
}

void RanNow::merge(const Key& key, const Sum& sum) {
  Key kept = key;
  if (sums_.size() >= kMost && !sums_.contains(key)) std::get<1>(kept) = Lines::kUnknown;
  Sum& all = sums_[kept];
  if (all.count == 0 || sum.began < all.began) all.began = sum.began;
  all.count += sum.count;
  all.nanoseconds += sum.nanoseconds;
}

NotedNow::NotedNow(const Session* session, OpInfo& info, WhyNow why) {
  if (!session || session != this_session.get()) return;
  if (info.ran_in.exchange(session->id, std::memory_order_relaxed) != session->id)
    info.ran_now.store(0, std::memory_order_relaxed);
  const uint32_t before = info.ran_now.fetch_add(1, std::memory_order_relaxed);
  if (before >= kAll) {
    if (before % kOneIn != 0) return;
    stands_for_ = kOneIn;
  }
  session_ = this_session;
  epoch_ = registry().epoch;
  key_ = {&info, where_here().first, why};
  began_ = std::chrono::steady_clock::now();
}

NotedNow::~NotedNow() {
  if (!session_) return;
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - began_;
  const Lock lock(shared_mutex);
  const RanNow::Sum sum{nanoseconds_of(began_), stands_for_, stands_for_ * took.count()};
  session_->ran_now.add(key_, sum, epoch_);
}

}  // namespace torchy
