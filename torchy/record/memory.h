// Memory for what a flush computes, and of what it reads.
//
// Large blocks come from the kernel anew each time, and are zeroed page by page when they are first
// touched: that may take longer than computing what goes there. So the last large block that the
// program has dropped is kept for the next flush while sessions are open, if the flush that made it
// saved as much: eager would have held that for its temporaries. It goes when an op that runs by
// itself may want as much.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <c10/core/StorageImpl.h>
#include <sys/mman.h>

#include <mutex>

namespace torchy {

class LargeBlock {
 public:
  static c10::DataPtr allocate(size_t bytes, bool keep) {
    std::unique_ptr<LargeBlock> block;
    {
      std::lock_guard<std::mutex> lock(spare().mutex);
      block = std::move(spare().block);
    }
    if (block && block->bytes_ != bytes) block.reset();  // before another one is made
    if (!block) block = std::make_unique<LargeBlock>(bytes);
    block->keep_ = keep;
    void* address = block->memory_.get();
    return {address, block.release(), &drop, c10::Device(c10::kCPU)};
  }

  explicit LargeBlock(size_t bytes)
      : memory_(c10::GetCPUAllocator()->allocate(bytes)), bytes_(bytes) {
    constexpr size_t kHuge = size_t{1} << 21;
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    const auto begin = (address + kHuge - 1) & ~(kHuge - 1), end = (address + bytes) & ~(kHuge - 1);
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }

  static bool holds(const c10::DataPtr& memory) { return memory.get_deleter() == &drop; }

  // Whether blocks are kept from now on.
  static void keep_spare(bool on) {
    {
      std::lock_guard<std::mutex> lock(spare().mutex);
      spare().wanted = on;
    }
    if (!on) drop_spare();
  }

  static std::mutex& mutex() { return spare().mutex; }

  // Somebody else may need the memory.
  static void drop_spare() {
    std::unique_ptr<LargeBlock> dropped;
    std::lock_guard<std::mutex> lock(spare().mutex);
    dropped = std::move(spare().block);
  }

 private:
  struct Spare {
    std::mutex mutex;
    bool wanted = false;
    std::unique_ptr<LargeBlock> block;
  };

  static Spare& spare() {
    static Spare* instance = std::make_unique<Spare>().release();  // lives as long as the process
    return *instance;
  }

  static void drop(void* context) {
    std::unique_ptr<LargeBlock> block(static_cast<LargeBlock*>(context));
    std::lock_guard<std::mutex> lock(spare().mutex);
    if (spare().wanted && block->keep_) std::swap(spare().block, block);
  }

  c10::DataPtr memory_;
  size_t bytes_;
  bool keep_ = false;
};

// From here on glibc asks the kernel, always.
inline constexpr size_t kLarge = size_t{32} << 20;

// A block of memory, large or small; `saved` are the bytes of the largest buffer that the flush did
// without.
inline c10::DataPtr allocate_memory(size_t bytes, size_t saved) {
  if (bytes < kLarge) return c10::GetCPUAllocator()->allocate(bytes);
  return LargeBlock::allocate(bytes, bytes <= saved);
}

// The memory of a storage that traces read. They hold the storage weakly, so that its reference
// count is what the program (and autograd, which adds in place to what nobody else holds) expects;
// should the program drop it, the memory stays until they are done.
struct Kept : c10::intrusive_ptr_target {
  explicit Kept(c10::DataPtr&& memory) : memory(std::move(memory)) {}
  c10::DataPtr memory;

  static void drop(void* kept) { c10::intrusive_ptr<Kept>::reclaim(static_cast<Kept*>(kept)); }

  static bool holds(const c10::StorageImpl& storage) {
    return storage.data_ptr().get_deleter() == &drop;
  }

  // Call with the mutex held. Nobody notices: the address stays the same throughout.
  static c10::intrusive_ptr<Kept> of(c10::StorageImpl& storage) {
    auto& pointer = storage._mutable_data_ptr_no_checks();
    if (holds(storage))
      return c10::intrusive_ptr<Kept>::reclaim_copy(static_cast<Kept*>(pointer.get_context()));
    void* address = pointer.get();
    auto kept = c10::make_intrusive<Kept>(std::move(pointer));
    auto another = kept;
    storage.set_data_ptr_noswap(
        c10::DataPtr(address, another.release(), &drop, c10::Device(c10::kCPU)));
    return kept;
  }

  // The last trace gives the memory back to its storage.
  static void give_back(c10::StorageImpl& storage, const c10::intrusive_ptr<Kept>& kept) {
    if (kept.use_count() == 2 && holds(storage) && storage.data_ptr().get_context() == kept.get())
      storage.set_data_ptr_noswap(std::move(kept->memory));
  }
};

}  // namespace torchy
