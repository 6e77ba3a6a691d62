// Traces being recorded or run, and the storages and tensors that are pending on them.
#pragma once

#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/flat_hash_map.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "layout.h"
#include "memory.h"
#include "mutex.h"

namespace torchy {

using WeakStorage = c10::weak_intrusive_ptr<c10::StorageImpl>;
using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl>;

// A weak reference, made without a strong one: that takes the GIL of what only Python holds.
template <typename T>
c10::weak_intrusive_ptr<T> weakly(T& target) {
  c10::raw::weak_intrusive_ptr::incref(&target);
  return c10::weak_intrusive_ptr<T>::reclaim(&target);
}

struct Trace;

// The storage of a pending result. It tells its slot when the program lets go of it, and is like
// any other once it has its values.
class PendingStorage final : public c10::StorageImpl {
 public:
  PendingStorage(size_t bytes, Trace& trace, int slot);
  ~PendingStorage() override { forget(); }
  void release_resources() override {
    forget();
    StorageImpl::release_resources();
  }

  // Its slot in a trace, -1 if that is not where it belongs.
  int slot_in(const Trace& trace) const TORCHY_REQUIRES(shared_mutex) {
    return trace_.load() == &trace ? slot_ : -1;
  }
  void settled() TORCHY_REQUIRES(shared_mutex) { trace_ = nullptr; }

 private:
  void forget();
  std::atomic<Trace*> trace_;
  int slot_;
};

// The tensor that a recorded op returned. The same.
class PendingTensor final : public c10::TensorImpl {
 public:
  PendingTensor(c10::Storage&& storage, const Layout& layout, Trace& trace, int slot);
  ~PendingTensor() override { forget(); }
  void release_resources() override {
    forget();
    TensorImpl::release_resources();
  }
  void settled() TORCHY_REQUIRES(shared_mutex) { trace_ = nullptr; }

 private:
  void forget();
  std::atomic<Trace*> trace_;
  int slot_;
};

// A storage that a trace reads or writes; nothing here keeps the program's storage alive.
struct Slot {
  c10::StorageImpl* storage = nullptr;  // null once a result's is gone
  PendingTensor* tensor = nullptr;      // of a result, while it is there
  std::optional<WeakStorage> weak;      // of an input, whose address cannot be reused meanwhile
  c10::intrusive_ptr<Kept> kept;        // of what is only read
  const char* given = nullptr;          // where an input's memory lay when it was recorded
  c10::DataPtr memory;                  // of a pending storage: set aside, or made by the flush
  size_t bytes = 0;
  int last_view = -1;
  bool created = false, written = false, live = true;

  bool pending() const { return created || written; }
  // Not if an op has resized the storage without the walker seeing it.
  bool as_recorded() const {
    return storage->nbytes() == bytes &&
           storage->data_ptr().get() == (pending() ? nullptr : static_cast<const void*>(given));
  }
  bool reachable() const TORCHY_REQUIRES(shared_mutex) {
    return weak ? weak->use_count() > 0 : storage != nullptr;
  }
  void* address() const { return kept ? kept->memory.get() : memory.get(); }
};

// Real tensors with the layout of a view, on its slot's memory, which the program cannot see: one
// that needs no gradient, and one that does.
struct Shadows {
  using Idle = std::array<std::vector<at::Tensor>, 2>;
  std::array<at::Tensor, 2> by_gradient;

  // They are not needed any more.
  void drop(Idle& idle);
};

// The inputs of a trace as they were before it ran, by slot: those that it only reads, and copies
// of those that it writes.
struct Before {
  std::vector<c10::intrusive_ptr<Kept>> read;
  std::vector<c10::DataPtr> copies;
};

struct Trace {
  // Tensors known to carry the bit. Those that are gone are let go of now and then.
  struct Bearers {
    std::vector<WeakTensor> tensors;
    std::vector<WeakTensor> taken;  // by a flush that ends
    size_t room = 64;

    void add(WeakTensor tensor);
  };

  std::vector<Node*> path;
  std::vector<Slot> slots;
  std::vector<View> views;
  std::vector<int64_t> words;
  std::vector<int64_t> numbers;  // raw bits
  Bearers bearers;               // beside results, which are known to their slots
  ProcessState state;
  std::optional<Precision> precision;    // if it has ops that mind
  size_t large_bytes = 0;                // since the memory kept alive was last weighed
  size_t peak = 0;                       // bytes that eager would have held at most
  size_t input_bytes = 0;                // of slots that are not created here
  std::vector<int64_t> addresses;        // of the slots' memory, once a flush has begun
  std::vector<Shadows> shadows;          // by view, where a call has needed one: see caller.h
  Shadows::Idle idle;                    // those that nobody uses, for views to come
  std::vector<uint8_t> flags;            // by slot
  int64_t at = 0;                        // the next step, as an index into the program's words
  int64_t script = kNoScript;            // that is being run
  std::shared_ptr<Script> held;          // the same, for this flush alone until that is finished
  std::vector<int64_t> own;              // the program, if it is interpreted
  int64_t serial = 0;                    // of the flush, in its session
  const int64_t* program = nullptr;      // that has been begun
  bool seen = false;                     // Python has begun to run it
  std::vector<int64_t> times;            // nanoseconds, by step; less than 0: why a kernel refused
  bool refused = false;                  // a kernel has
  std::shared_ptr<const Before> before;  // if somebody wants to run it again
  size_t checks = 0;                     // the last slots: see births.h
  bool hunts = false;                    // calls are looked at, see births.h
  bool suspect = false;                  // one of them has made a NaN, or an infinity
  int64_t calls = 0, called = 0;         // of torch's ops: how many, and nanoseconds that they took

  // Empty again, with the room that it has: as long as the last one was, most traces are again.
  // What it held is dropped: call without the mutex.
  void clear();

  // Until a flush has begun, all that is here is guarded by the mutex; then it is the flusher's.
  int find_slot(c10::StorageImpl* storage) TORCHY_REQUIRES(shared_mutex);

  // Looks at the views made of a slot last; a view not found again is just another view.
  int find_view(int slot, const c10::TensorImpl& tensor) const;

  int add_view(int slot, int64_t offset, c10::IntArrayRef sizes, c10::IntArrayRef strides,
               c10::ScalarType dtype);

  // Bytes that the flush would need, and that eager would hold now (as if nothing were deferred).
  void weigh(size_t& needed, size_t& eager) const TORCHY_REQUIRES(shared_mutex);

 private:
  ska::flat_hash_map<c10::StorageImpl*, int> inputs_;  // of the first slots
  size_t indexed_ = 0;                                 // how many
};

// Called with a storage whose memory somebody is about to write or take through a raw pointer: by
// torch, which asks this of those that are watched. See settle.h.
inline void (*on_access)(c10::StorageImpl* storage) = nullptr;

inline void watch(c10::StorageImpl& storage) {
  if (!storage.has_materializer()) storage.set_materializer(on_access);
}

// The result that a slot is created for; its view is up to the caller.
at::Tensor pending_tensor(Trace& trace, const Layout& layout) TORCHY_REQUIRES(shared_mutex);

// An input's values become pending too: its memory is set aside, its only tensor gets the bit.
void defer_write(Trace& trace, Slot& slot, c10::TensorImpl& tensor) TORCHY_REQUIRES(shared_mutex);

}  // namespace torchy
