// Memory for large tensors, of eager ops too: blocks that tensors have dropped are kept for the
// next ones, so that the kernel need not map and zero their pages anew each time.
//
// It is torch's CPU allocator once a session has been opened (unless a setting says no, or somebody
// else has set one of a higher priority), and stays it: storages remember what has made them. What
// is kept is bounded by what the program itself had in use lately.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace torchy {

class Pool final : public c10::Allocator {
 public:
  static Pool& get() {
    static Pool* pool = std::unique_ptr<Pool>(new Pool).release();  // outlives all tensors
    return *pool;
  }

  // Makes it torch's allocator, once. Does nothing if another one goes before it.
  void install() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (before_) return;
    auto* current = c10::GetCPUAllocator();
    if (!current->raw_deleter()) return;
    before_ = current;
    constexpr uint8_t kPriority = 0;  // does nothing below the priority of what is set
    c10::SetCPUAllocator(this, kPriority);
  }

  c10::DataPtr allocate(size_t bytes) override {
    void* data = is_large(bytes) ? take(bytes) : nullptr;
    if (!data) return before_->allocate(bytes);  // which words it as ever if there is no memory
    c10::profiledCPUMemoryReporter().New(data, bytes);
    return {data, data, &drop, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &drop; }  // takes all blocks

  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

  // Whether a storage's memory is plain: made by this allocator, or by the one in force.
  bool made(const c10::DataPtr& memory) const {
    const auto deleter = memory.get_deleter();
    return deleter == &drop || deleter == c10::GetCPUAllocator()->raw_deleter() ||
           (before_ && deleter == before_->raw_deleter());
  }
  bool is_plain(const c10::Allocator* allocator) const {
    return allocator && (allocator == this || allocator == c10::GetCPUAllocator() ||
                         allocator == before_);  // none yet, perhaps
  }

  // Gives back to the kernel what has not been handed out since a moment; `now` is one.
  void trim(uint64_t since) {
    Dropped dropped;
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto block = kept_.begin(); block != kept_.end();) {
      auto next = std::next(block);
      if (block->second.taken < since) dropped.push_back(unkeep(block));
      block = next;
    }
  }

  uint64_t now() {
    std::lock_guard<std::mutex> lock(mutex_);
    return turn_;
  }

  // Gives back all that is kept; returns how many bytes that were.
  size_t release() {
    Dropped dropped;
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t bytes = kept_bytes_;
    evict(0, dropped);
    return bytes;
  }

  std::mutex& mutex() { return mutex_; }

  // In a child, whose first writes would copy what it reuses. Call with the mutex held.
  void forget_after_fork() {
    Dropped dropped;
    evict(0, dropped);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kPage = size_t{1} << 12, kMiB = size_t{1} << 20, kHuge = 2 * kMiB;
  static constexpr size_t kSmallest = kMiB;    // smaller blocks stay with the allocator from before
  static constexpr size_t kAlways = 8 * kMiB;  // may be kept whatever the program's peak
  static constexpr size_t kWaste = 8;  // a block may be this part larger than what was asked for
  static constexpr auto kPeriod = std::chrono::seconds(10);  // a peak is recent for one or two

  struct Block {
    char* address = nullptr;
    size_t size = 0;
    uint64_t taken = 0, dropped = 0;  // when
  };

  // Blocks on their way back to the kernel; declared before the lock, so that they go after.
  struct Dropped : std::vector<Block> {
    ~Dropped() {
      for (const Block& block : *this) munmap(block.address, block.size);
    }
  };

  Pool() = default;

  static bool is_large(size_t bytes) {
    return bytes >= kSmallest && static_cast<ptrdiff_t>(bytes) > 0;
  }

  // Sizes are rounded up to eighths of a power of two, so that nearly equal requests share blocks.
  // What is never touched is never resident: that costs addresses, hardly any memory.
  static size_t rounded(size_t bytes) {
    size_t step = kPage;
    while (step * 2 * kWaste <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }

  // Fresh memory at a multiple of 2 MiB. Huge pages where a whole one is asked for: one fault
  // instead of 512, and no more memory than ordinary pages would take.
  static Block map_block(size_t bytes) {
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

  void* take(size_t bytes) {
    const size_t size = rounded(bytes);
    {
      Dropped dropped;
      std::lock_guard<std::mutex> lock(mutex_);
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
    std::lock_guard<std::mutex> lock(mutex_);
    return block.address ? use(block) : nullptr;
  }

  static void drop(void* data) {
    // The pool's are at multiples of 2 MiB; few others are.
    if (reinterpret_cast<uintptr_t>(data) % kHuge || !get().owns(data))
      return get().before_->raw_deallocate(data);
    c10::profiledCPUMemoryReporter().Delete(data);  // before anybody else gets this address
    get().keep(data);
  }

  bool owns(void* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    return used_.count(data) > 0;
  }

  void keep(void* data) {
    Dropped dropped;
    std::lock_guard<std::mutex> lock(mutex_);
    Block block = used_.extract(data).mapped();
    block.dropped = ++turn_;
    used_bytes_ -= block.size;
    kept_.emplace(block.size, block);
    kept_bytes_ += block.size;
    bound(0, dropped);
  }

  // From here on, call with the mutex held.

  // In use and kept, `more` included: at most what the program itself has had in use lately.
  void bound(size_t more, Dropped& dropped) {
    const size_t used = used_bytes_ + more, most = std::max(peak(), used);
    evict(std::max(kAlways, most - used), dropped);
  }

  void* use(Block block) {
    block.taken = ++turn_;
    used_.emplace(block.address, block);
    used_bytes_ += block.size;
    peaks_[0] = std::max(peaks_[0], used_bytes_);
    return block.address;
  }

  Block unkeep(std::multimap<size_t, Block>::iterator which) {
    kept_bytes_ -= which->first;
    return kept_.extract(which).mapped();
  }

  void evict(size_t most, Dropped& dropped) {
    auto older = [](auto& a, auto& b) { return a.second.dropped < b.second.dropped; };
    while (kept_bytes_ > most)
      dropped.push_back(unkeep(std::min_element(kept_.begin(), kept_.end(), older)));
  }

  size_t peak() {  // the most in use in this period and the last
    if (const auto passed = Clock::now() - since_; passed > kPeriod) {
      peaks_[1] = passed > 2 * kPeriod ? used_bytes_ : peaks_[0];
      peaks_[0] = used_bytes_;
      since_ += passed;
    }
    return std::max({peaks_[0], peaks_[1], used_bytes_});
  }

  std::mutex mutex_;
  std::multimap<size_t, Block> kept_;  // by size, what was dropped later behind
  std::unordered_map<void*, Block> used_;
  size_t used_bytes_ = 0, kept_bytes_ = 0, peaks_[2] = {0, 0};
  uint64_t turn_ = 0;
  Clock::time_point since_ = Clock::now();
  c10::Allocator* before_ = nullptr;
};

}  // namespace torchy
