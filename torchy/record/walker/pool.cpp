#include "pool.h"

namespace torchy {

void Pool::install() {
  const Lock lock(mutex_);
  if (before_) return;
  auto* current = c10::GetCPUAllocator();
  if (!current->raw_deleter()) return;
  before_ = current;
  constexpr uint8_t kPriority = 0;  // does nothing below the priority of what is set
  c10::SetCPUAllocator(this, kPriority);
}

c10::DataPtr Pool::allocate(size_t bytes) {
  void* data = is_large(bytes) ? take(bytes) : nullptr;
  if (!data) return before_->allocate(bytes);  // which words it as ever if there is no memory
  c10::profiledCPUMemoryReporter().New(data, bytes);
  return {data, data, &drop, c10::Device(c10::kCPU)};
}

bool Pool::made(const c10::DataPtr& memory) const {
  const auto deleter = memory.get_deleter();
  return deleter == &drop || deleter == c10::GetCPUAllocator()->raw_deleter() ||
         (before_ && deleter == before_->raw_deleter());
}

void Pool::trim(uint64_t since) {
  Dropped dropped;
  const Lock lock(mutex_);
  for (auto block = kept_.begin(); block != kept_.end();) {
    auto next = std::next(block);
    if (block->second.taken < since) dropped.push_back(unkeep(block));
    block = next;
  }
}

size_t Pool::release() {
  Dropped dropped;
  const Lock lock(mutex_);
  const size_t bytes = kept_bytes_;
  evict(0, dropped);
  return bytes;
}

size_t Pool::rounded(size_t bytes) {
  size_t step = kPage;
  while (step * 2 * kWaste <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

Pool::Block Pool::map_block(size_t bytes) {
  constexpr int kRights = PROT_READ | PROT_WRITE, kOwn = MAP_PRIVATE | MAP_ANONYMOUS;
  const size_t size = rounded(bytes);
  void* start = mmap(nullptr, size + kHuge, kRights, kOwn, -1, 0);
  if (start == MAP_FAILED) return {};
  const auto begin = reinterpret_cast<uintptr_t>(start);
  const auto at = (begin + kHuge - 1) & ~(kHuge - 1);
  auto* address = reinterpret_cast<char*>(at);
  if (at > begin) munmap(start, at - begin);
  if (const size_t tail = begin + kHuge - at) munmap(address + size, tail);
  if (const size_t whole = bytes & ~(kHuge - 1)) madvise(address, whole, MADV_HUGEPAGE);
  return {address, size};
}

void* Pool::take(size_t bytes) {
  const size_t size = rounded(bytes);
  {
    Dropped dropped;
    const Lock lock(mutex_);
    // The smallest that fits, of those the one dropped last: it may still be in the caches.
    auto found = kept_.lower_bound(size);
    if (found != kept_.end() && found->first <= size + size / kWaste)
      return use(unkeep(std::prev(kept_.upper_bound(found->first))));
    bound(size, dropped);
  }
  Block block = map_block(bytes);
  if (!block.address) {
    release();
    block = map_block(bytes);
  }
  const Lock lock(mutex_);
  return block.address ? use(block) : nullptr;
}

void Pool::drop(void* data) {
  // The pool's are at multiples of 2 MiB; few others are.
  if (reinterpret_cast<uintptr_t>(data) % kHuge || !get().owns(data))
    return get().before_->raw_deallocate(data);
  c10::profiledCPUMemoryReporter().Delete(data);  // before anybody else gets this address
  get().keep(data);
}

void Pool::keep(void* data) {
  Dropped dropped;
  const Lock lock(mutex_);
  Block block = used_.extract(data).mapped();
  block.dropped = ++turn_;
  used_bytes_ -= block.size;
  kept_.emplace(block.size, block);
  kept_bytes_ += block.size;
  bound(0, dropped);
}

void* Pool::use(Block block) {
  block.taken = ++turn_;
  used_.emplace(block.address, block);
  used_bytes_ += block.size;
  peaks_[0] = std::max(peaks_[0], used_bytes_);
  return block.address;
}

void Pool::evict(size_t most, Dropped& dropped) {
  auto older = [](auto& a, auto& b) { return a.second.dropped < b.second.dropped; };
  while (kept_bytes_ > most)
    dropped.push_back(unkeep(std::min_element(kept_.begin(), kept_.end(), older)));
}

size_t Pool::peak() {  // the most in use in this period and the last
  if (const auto passed = Clock::now() - since_; passed > kPeriod) {
    peaks_[1] = passed > 2 * kPeriod ? used_bytes_ : peaks_[0];
    peaks_[0] = used_bytes_;
    since_ += passed;
  }
  return std::max({peaks_[0], peaks_[1], used_bytes_});
}

}  // namespace torchy
