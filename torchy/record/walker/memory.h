// Of the memory that flushes read.
#pragma once

#include <c10/core/StorageImpl.h>

#include "mutex.h"

namespace torchy {

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

  // Nobody notices: the address stays the same throughout.
  static c10::intrusive_ptr<Kept> of(c10::StorageImpl& storage) TORCHY_REQUIRES(shared_mutex);

  // The last trace gives the memory back to its storage.
  static void give_back(c10::StorageImpl& storage, const c10::intrusive_ptr<Kept>& kept) {
    if (kept.use_count() == 2 && holds(storage) && storage.data_ptr().get_context() == kept.get())
      storage.set_data_ptr_noswap(std::move(kept->memory));
  }
};

// A copy of memory, as far from the beginning of a cache line as that is: where it lies may show in
// what a library computes.
c10::DataPtr copy_of(const void* memory, size_t bytes);

}  // namespace torchy
