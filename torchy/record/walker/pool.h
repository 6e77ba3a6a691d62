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
#include <unordered_map>
#include <vector>

#include "mutex.h"

namespace torchy {

class Pool final : public c10::Allocator {
 public:
  static Pool& get() {
    static Pool* pool = std::unique_ptr<Pool>(new Pool).release();  // outlives all tensors
    return *pool;
  }

  // Makes it torch's allocator, once. Does nothing if another one goes before it.
  void install();

  c10::DataPtr allocate(size_t bytes) override;

  c10::DeleterFnPtr raw_deleter() const override { return &drop; }  // takes all blocks

  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

  // Whether a storage's memory is plain: made by this allocator, or by the one in force.
  bool made(const c10::DataPtr& memory) const;
  bool is_plain(const c10::Allocator* allocator) const {
    return allocator && (allocator == this || allocator == c10::GetCPUAllocator() ||
                         allocator == before_);  // none yet, perhaps
  }

  // Gives back to the kernel what has not been handed out since a moment; `now` is one.
  void trim(uint64_t since);

  uint64_t now() {
    const Lock lock(mutex_);
    return turn_;
  }

  // Gives back all that is kept; returns how many bytes that were.
  size_t release();

  Mutex& mutex() { return mutex_; }

  // In a child, whose first writes would copy what it reuses.
  void forget_after_fork() TORCHY_REQUIRES(mutex_) {
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
  static size_t rounded(size_t bytes);

  // Fresh memory at a multiple of 2 MiB. Huge pages where a whole one is asked for: one fault
  // instead of 512, and no more memory than ordinary pages would take.
  static Block map_block(size_t bytes);

  void* take(size_t bytes);

  static void drop(void* data);

  bool owns(void* data) {
    const Lock lock(mutex_);
    return used_.count(data) > 0;
  }

  void keep(void* data);

  // In use and kept, `more` included: at most what the program itself has had in use lately.
  void bound(size_t more, Dropped& dropped) TORCHY_REQUIRES(mutex_) {
    const size_t used = used_bytes_ + more, most = std::max(peak(), used);
    evict(std::max(kAlways, most - used), dropped);
  }

  void* use(Block block) TORCHY_REQUIRES(mutex_);

  Block unkeep(std::multimap<size_t, Block>::iterator which) TORCHY_REQUIRES(mutex_) {
    kept_bytes_ -= which->first;
    return kept_.extract(which).mapped();
  }

  void evict(size_t most, Dropped& dropped) TORCHY_REQUIRES(mutex_);

  size_t peak() TORCHY_REQUIRES(mutex_);

  Mutex mutex_;
  std::multimap<size_t, Block> kept_
      TORCHY_GUARDED_BY(mutex_);  // by size, what was dropped later behind
  std::unordered_map<void*, Block> used_ TORCHY_GUARDED_BY(mutex_);
  size_t used_bytes_ TORCHY_GUARDED_BY(mutex_) = 0;
  size_t kept_bytes_ TORCHY_GUARDED_BY(mutex_) = 0;
  size_t peaks_[2] TORCHY_GUARDED_BY(mutex_) = {0, 0};
  uint64_t turn_ TORCHY_GUARDED_BY(mutex_) = 0;
  Clock::time_point since_ TORCHY_GUARDED_BY(mutex_) = Clock::now();
  c10::Allocator* before_ = nullptr;
};

}  // namespace torchy
