#include "memory.h"

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

}  // namespace torchy
