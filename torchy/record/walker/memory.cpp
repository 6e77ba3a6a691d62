#include "memory.h"

#include <c10/core/CPUAllocator.h>

#include <cstring>

namespace torchy {

c10::intrusive_ptr<Kept> Kept::of(c10::StorageImpl& storage) {
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

c10::DataPtr copy_of(const void* memory, size_t bytes) {
  constexpr size_t kLine = 64;
  auto room = c10::GetCPUAllocator()->allocate(bytes + kLine);
  const auto wanted = reinterpret_cast<size_t>(memory),
             begin = reinterpret_cast<size_t>(room.get());
  void* data = static_cast<char*>(room.get()) + (wanted - begin) % kLine;
  if (bytes > 0) std::memcpy(data, memory, bytes);
  const auto deleter = room.get_deleter();
  return {data, room.release_context(), deleter, c10::Device(c10::kCPU)};
}

}  // namespace torchy
