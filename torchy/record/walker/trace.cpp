#include "trace.h"

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <typeinfo>

#include "keys.h"

namespace torchy {

namespace {

c10::DataPtr no_memory() { return c10::DataPtr(nullptr, c10::Device(c10::kCPU)); }

inline constexpr auto kPendingKeys =
    c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutocastCPU}) |
    c10::DispatchKeySet(kBit);

}  // namespace

void Trace::Bearers::add(WeakTensor tensor) {
  if (tensors.size() >= room) {
    std::erase_if(tensors, [](const WeakTensor& known) { return known.expired(); });
    room = std::max<size_t>(64, 2 * tensors.size());
  }
  tensors.push_back(std::move(tensor));
}

void Trace::clear() {
  path.clear();
  slots.clear();
  views.clear();
  words.clear();
  numbers.clear();
  bearers.tensors.clear();
  precision.reset();
  large_bytes = peak = input_bytes = indexed_ = 0;
  addresses.clear();
  for (Shadows& known : shadows) known.drop(idle);
  shadows.clear();
  flags.clear();
  at = calls = called = 0;
  script = kNoScript;
  held.reset();
  own.clear();
  program = nullptr;
  seen = false;
  times.clear();
  refused = hunts = suspect = false;
  before.reset();
  checks = 0;
  inputs_.clear();
}

void Shadows::drop(Idle& idle) {
  constexpr size_t kMostIdle = 256;
  for (size_t i = 0; i < idle.size(); ++i) {
    const at::Tensor shadow = std::move(by_gradient[i]);
    if (!shadow.defined() || idle[i].size() >= kMostIdle) continue;
    const c10::Storage& storage = shadow.storage();
    // the storages of ops' results can be resized
    if (shadow.use_count() == 1 && shadow.weak_use_count() == 1 && storage.use_count() == 1 &&
        !storage.resizable())
      idle[i].push_back(shadow);
  }
}

int Trace::find_slot(c10::StorageImpl* storage) {
  if (slots.empty() || !storage->has_materializer()) return -1;
  if (typeid(*storage) == typeid(PendingStorage)) {
    const int slot = static_cast<PendingStorage*>(storage)->slot_in(*this);
    if (slot >= 0) return slot;
  }
  for (; indexed_ < slots.size(); ++indexed_)
    if (slots[indexed_].weak) inputs_[slots[indexed_].storage] = static_cast<int>(indexed_);
  const auto found = inputs_.find(storage);
  return found == inputs_.end() ? -1 : found->second;
}

int Trace::find_view(int slot, const c10::TensorImpl& tensor) const {
  auto sizes = tensor.sizes(), strides = tensor.strides();
  int looked = 0;
  for (int i = slots[slot].last_view; i >= 0 && looked < 8; i = views[i].previous, ++looked) {
    const View& view = views[i];
    const int64_t* at = &words[view.at];
    if (view.rank == sizes.size() && at[0] == tensor.storage_offset() &&
        view.dtype == c10::typeMetaToScalarType(tensor.dtype()) &&
        std::equal(sizes.begin(), sizes.end(), at + 1) &&
        std::equal(strides.begin(), strides.end(), at + 1 + view.rank))
      return i;
  }
  return -1;
}

int Trace::add_view(int slot, int64_t offset, c10::IntArrayRef sizes, c10::IntArrayRef strides,
                    c10::ScalarType dtype) {
  int index = static_cast<int>(views.size());
  views.push_back(
      {slot, slots[slot].last_view, words.size(), static_cast<uint8_t>(sizes.size()), dtype});
  slots[slot].last_view = index;
  words.push_back(offset);
  words.insert(words.end(), sizes.begin(), sizes.end());
  words.insert(words.end(), strides.begin(), strides.end());
  return index;
}

void Trace::weigh(size_t& needed, size_t& eager) const {
  needed = eager = 0;
  for (const Slot& slot : slots) {
    bool reachable = slot.reachable();
    if (!slot.created || reachable) needed += slot.bytes;
    if (reachable) eager += slot.bytes;
  }
}

PendingStorage::PendingStorage(size_t bytes, Trace& trace, int slot)
    : StorageImpl(use_byte_size_t(),
                  c10::SymInt(c10::SymInt::UNCHECKED, static_cast<int64_t>(bytes)), no_memory(),
                  c10::GetCPUAllocator(), /*resizable=*/true),
      trace_(&trace),
      slot_(slot) {
  set_materializer(on_access);
}

void PendingStorage::forget() {
  if (!trace_.load(std::memory_order_acquire)) return;
  const Lock lock(shared_mutex);
  if (Trace* trace = trace_.exchange(nullptr))
    trace->slots[static_cast<size_t>(slot_)].storage = nullptr;
}

PendingTensor::PendingTensor(c10::Storage&& storage, const Layout& layout, Trace& trace, int slot)
    : TensorImpl(std::move(storage), kPendingKeys, c10::scalarTypeToTypeMeta(layout.dtype)),
      trace_(&trace),
      slot_(slot) {
  constexpr size_t kInline = 3;  // dimensions, up to which there are no other flags
  if (layout.contiguous && layout.sizes.size() <= kInline) {
    sizes_and_strides_.set_sizes(layout.sizes);
    std::copy(layout.strides.begin(), layout.strides.end(), sizes_and_strides_.strides_data());
    numel_ = layout.elements;
    is_contiguous_ = is_non_overlapping_and_dense_ = true;
  } else {
    set_sizes_and_strides(layout.sizes, layout.strides);
  }
}

// Its storage goes with it, mostly: one lock serves both.
void PendingTensor::forget() {
  if (!trace_.load(std::memory_order_acquire)) return;
  const Lock lock(shared_mutex);
  Trace* trace = trace_.exchange(nullptr);
  if (!trace) return;
  Slot& slot = trace->slots[static_cast<size_t>(slot_)];
  slot.tensor = nullptr;
  auto* storage = unsafe_storage().unsafeGetStorageImpl();
  if (storage != slot.storage || !storage) return;
  auto only = c10::intrusive_ptr<c10::StorageImpl>::reclaim(storage);
  if (only.use_count() == 1 && only.weak_use_count() == 1) {
    slot.storage = nullptr;
    static_cast<PendingStorage*>(storage)->settled();
  }
  only.release();
}

at::Tensor pending_tensor(Trace& trace, const Layout& layout) {
  const int index = static_cast<int>(trace.slots.size());
  Slot& slot = trace.slots.emplace_back();
  auto storage = c10::make_intrusive<PendingStorage>(layout.bytes, trace, index);
  slot.storage = storage.get();
  slot.bytes = layout.bytes;
  slot.created = true;
  auto tensor = c10::make_intrusive<PendingTensor>(
      c10::Storage(c10::intrusive_ptr<c10::StorageImpl>(std::move(storage))), layout, trace, index);
  slot.tensor = tensor.get();
  return at::Tensor(c10::intrusive_ptr<c10::TensorImpl>(std::move(tensor)));
}

void defer_write(Trace& trace, Slot& slot, c10::TensorImpl& tensor) {
  give_bit(tensor);  // before its memory goes: a thread that finds no bit reads it at once
  slot.written = true;
  slot.memory = std::move(slot.kept->memory);
  slot.storage->set_data_ptr_noswap(no_memory());
  slot.kept.reset();
  trace.bearers.add(weakly(tensor));
}

}  // namespace torchy
