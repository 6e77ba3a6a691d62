// Traces being recorded or run, the storages that are pending on them, and the sessions that own
// them.
//
// One mutex guards all of it. Nothing waits while holding it: no Python, no kernel, no destructor
// of a tensor, and no strong reference made of a weak one: to what Python holds, that takes the
// GIL.
#pragma once

#include <c10/core/StorageImpl.h>
#include <c10/util/flat_hash_map.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <typeinfo>

#include "hooks.h"
#include "layout.h"
#include "log.h"
#include "memory.h"
#include "source.h"

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

  // Its slot in a trace, -1 if that is not where it belongs. Call with the mutex held.
  int slot_in(const Trace& trace) const { return trace_.load() == &trace ? slot_ : -1; }
  void settled() { trace_ = nullptr; }  // the same

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
  void settled() { trace_ = nullptr; }  // call with the mutex held

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
  // Call with the mutex held.
  bool reachable() const { return weak ? weak->use_count() > 0 : storage != nullptr; }
  void* address() const { return kept ? kept->memory.get() : memory.get(); }
};

// What Python sees of a slot during a flush.
// Heavy, on the first slot: all that the flush needs at once is more than the bound allows.
enum SlotFlag : uint8_t { kCreated = 1, kWritten = 2, kLive = 4, kHeavy = 8 };

struct Trace {
  // Tensors known to carry the bit. Those that are gone are let go of now and then.
  struct Bearers {
    std::vector<WeakTensor> tensors;
    size_t room = 64;

    void add(WeakTensor tensor) {
      if (tensors.size() >= room) {
        std::erase_if(tensors, [](const WeakTensor& known) { return known.expired(); });
        room = std::max<size_t>(64, 2 * tensors.size());
      }
      tensors.push_back(std::move(tensor));
    }
  };

  static constexpr int64_t kNoScript = -1, kInterpreted = -2;

  std::vector<Node*> path;
  std::vector<Slot> slots;
  std::vector<View> views;
  std::vector<int64_t> words;
  std::vector<int64_t> numbers;  // raw bits
  Bearers bearers;               // beside results, which are known to their slots
  ProcessState state;
  std::optional<Precision> precision;  // if it has calls
  size_t large_bytes = 0;              // since the memory kept alive was last weighed
  size_t peak = 0;                     // bytes that eager would have held at most
  size_t input_bytes = 0;              // of slots that are not created here
  std::vector<int64_t> addresses;      // of the slots' memory, once a flush has begun
  std::vector<uint8_t> flags;          // by slot
  int64_t at = 0;                      // the next step, as an index into the program's words
  int64_t script = kNoScript;          // that is being run
  std::shared_ptr<Script> held;        // the same, for this flush alone until that is finished
  std::vector<int64_t> own;            // the program, if it is interpreted
  int64_t serial = 0;                  // of the flush, in its session
  const int64_t* program = nullptr;    // that has been begun
  bool seen = false;                   // Python has begun to run it
  std::vector<int64_t> times;          // nanoseconds, by step of the program
  int64_t called = 0;                  // nanoseconds that calls of torch's ops took

  // Empty again, with the room that it has: as long as the last one was, most traces are again.
  // What it held is dropped: call without the mutex.
  void clear() {
    path.clear();
    slots.clear();
    views.clear();
    words.clear();
    numbers.clear();
    bearers.tensors.clear();
    precision.reset();
    large_bytes = peak = input_bytes = indexed_ = 0;
    addresses.clear();
    flags.clear();
    at = called = 0;
    script = kNoScript;
    held.reset();
    own.clear();
    program = nullptr;
    seen = false;
    times.clear();
    inputs_.clear();
  }

  // Call with the mutex held, as for all that is here until a flush has begun.
  int find_slot(c10::StorageImpl* storage) {
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

  // Looks at the views made of a slot last; a view not found again is just another view.
  int find_view(int slot, const c10::TensorImpl& tensor) const {
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

  int add_view(int slot, int64_t offset, c10::IntArrayRef sizes, c10::IntArrayRef strides,
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

  // Bytes that the flush would need, and that eager would hold now (as if nothing were deferred).
  void weigh(size_t& needed, size_t& eager) const {
    needed = eager = 0;
    for (const Slot& slot : slots) {
      bool reachable = slot.reachable();
      if (!slot.created || reachable) needed += slot.bytes;
      if (reachable) eager += slot.bytes;
    }
  }

 private:
  ska::flat_hash_map<c10::StorageImpl*, int> inputs_;  // of the first slots
  size_t indexed_ = 0;                                 // how many
};

enum class SessionMode : int { kRecord = 0, kPassThrough = 1, kCarry = 2 };

// What only Python can decide or do.
enum class Ask : int64_t {
  kFlush = 0,
  kPlace = 1,
  kClassify = 2,
  kPace = 3,
  kPause = 4,
  kPlaces = 5
};
enum class Reason : int64_t {
  kOperand = 0,
  kMemory = 1,
  kLength = 2,
  kBytes = 3,
  kState = 4,
  kWrite = 5,
  kOtherThread = 6,
  kCalled = 7  // by Python, for a reason of its own
};
// What Python reads of a flush that is running.
struct Running {
  int64_t script = -1, serial = 0, at = 0, visits = 0, program = 0, size = 0;
  std::vector<int64_t> ids, words, numbers, times;
  std::vector<uint8_t> flags;
};

struct Session {
  int64_t id = 0;
  int64_t variant = 0;  // of what flushes run: scripts of others do not count
  int64_t origin = -1;  // of the place where the next trace begins; -1: ask
  Log log;
  Balance balance;
  std::shared_ptr<Trace> trace = std::make_shared<Trace>();
  std::shared_ptr<Trace> spare;             // the last one, empty
  std::shared_ptr<Trace> running;           // being flushed, or left by a flush that failed
  Node* root = nullptr;                     // where the next trace begins, if that is known
  std::thread::id flusher;                  // nobody: the default value
  std::optional<ProcessState> outer_state;  // while a flush runs under the recorder's
  std::optional<PrecisionFor> precision;
  SessionMode mode = SessionMode::kRecord;
  size_t max_ops = 1024, slack_bytes = 16 << 20;
  // counters
  bool interprets = false, skip_dead = true;  // settings
  int64_t recorded = 0, run_now = 0, places = 0, layouts = 0, policy_calls = 0, flushes = 0,
          views = 0, repeated = 0, interpreted = 0;

  bool too_long() const { return trace->path.size() >= max_ops; }

  // Whether the trace keeps too much memory alive. Asked before an op is recorded: what the last
  // one's result replaces is gone by then.
  bool too_large() {
    if (trace->large_bytes < kNoticed && trace->path.size() % 64 != 0) return false;
    // half of what is allowed: the rest is for temporaries of the flush, and the allocator's own
    const size_t needed = weigh();
    if (needed > trace->peak + allowance(*trace) / 2) return true;
    trace->large_bytes = 0;
    return false;
  }

  // Whether the trace keeps much that eager would have let go of by now: an op that is about to
  // run by itself may want as much.
  bool keeps_much() const {
    if (trace->input_bytes <= allowance(*trace) / 2) return false;
    size_t needed = 0, eager = 0;
    trace->weigh(needed, eager);
    return needed > eager + allowance(*trace) / 2;
  }

  // By how much a flush may exceed what eager would have held.
  size_t allowance(const Trace& of) const { return std::max(slack_bytes, of.peak / 20); }

  // The bytes that a flush would need now; what eager would hold counts towards its peak.
  size_t weigh() {
    size_t needed = 0, eager = 0;
    trace->weigh(needed, eager);
    trace->peak = std::max(trace->peak, eager);
    return needed;
  }

  static constexpr size_t kNoticed = size_t{1} << 20;  // what is smaller is weighed now and then
};

struct Registry {
  std::mutex mutex;
  std::unique_ptr<std::condition_variable> flushed = std::make_unique<std::condition_variable>();
  std::thread::id forker;  // while it forks, no other thread flushes
  std::vector<std::shared_ptr<Session>> sessions;
  ska::flat_hash_map<c10::StorageImpl*, WeakStorage>
      escaped;  // a raw pointer to these has left torch
  std::vector<std::unique_ptr<OpInfo>> ops;
  std::unordered_map<c10::OperatorName, OpInfo*> op_of_name;
  std::unordered_map<Words, std::unique_ptr<Signature>, WordsHash> signatures;
  std::unordered_map<int64_t, std::unique_ptr<Node>> roots;
  std::vector<Node*> nodes;
  std::vector<Step*> steps;
  size_t most_places = 40'000;     // from which on they are forgotten, when that is possible
  std::atomic<int64_t> epoch = 0;  // how often all places have been forgotten
  uint64_t opened = 0;             // when the first of the sessions was: see Pool::now

  std::shared_ptr<Session> find(int64_t id) {
    for (auto& session : sessions)
      if (session->id == id) return session;
    return nullptr;
  }

  bool flushes(std::thread::id thread) const {
    return std::any_of(sessions.begin(), sessions.end(),
                       [&](const auto& session) { return session->flusher == thread; });
  }

  // Whether a thread must not begin a flush: another one forks. One that is within a flush may, or
  // that would never end.
  bool held_up(std::thread::id thread) const {
    return forker != std::thread::id() && forker != thread && !flushes(thread);
  }
};

inline Registry& registry() {
  static Registry* instance =
      std::make_unique<Registry>().release();  // lives as long as the process
  return *instance;
}

inline thread_local std::shared_ptr<Session> this_session;

// A torch op with a Python kernel, so that exceptions pass through as what they are.
inline bool& listening() {
  static bool value = false;
  return value;
}

inline int64_t ask(Ask what, int64_t session, int64_t argument, const char* text = "") {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("torchy::ask", "");
  Paused paused;
  torch::jit::Stack stack{static_cast<int64_t>(what), session, argument, std::string(text)};
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);  // unseen by modes
  return stack.back().toInt();
}

inline void on_access(c10::StorageImpl* storage);
inline void flush(Session& session, Reason reason, const char* text);  // in interpret.h

// The program's line on this thread, and the number of the root for what is recorded from there on.
inline std::pair<int64_t, int64_t> where_here() {
  if (!Py_IsInitialized()) return {Lines::kUnknown, Lines::kUnknown};
  Gil gil;
  const int64_t line = lines().here();
  return {line, lines().origin(line)};
}

// Which sessions have a storage in a trace, and whether one of them owes it values. Call with the
// mutex held.
inline std::vector<std::shared_ptr<Session>> holders(c10::StorageImpl* storage, bool* pending) {
  std::vector<std::shared_ptr<Session>> found;
  *pending = false;
  for (auto& session : registry().sessions) {
    bool here = false;
    for (Trace* trace : {session->trace.get(), session->running.get()}) {
      if (!trace) continue;
      int slot = trace->find_slot(storage);
      if (slot < 0) continue;
      here = true;
      *pending = *pending || trace->slots[slot].pending();
    }
    if (here) found.push_back(session);
  }
  return found;
}

// Flushes whatever is pending on a storage, or, if it is about to be written, whatever still has to
// read it.
inline void settle_storage(c10::StorageImpl* storage, bool written, Reason reason,
                           const char* text) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    std::vector<std::shared_ptr<Session>> sessions;
    bool pending = false;
    {
      std::lock_guard<std::mutex> lock(registry().mutex);
      sessions = holders(storage, &pending);
    }
    if (sessions.empty() || !(pending || written)) return;
    for (auto& session : sessions)
      flush(*session, session == this_session ? reason : Reason::kOtherThread, text);
  }
}

inline void note_escape(c10::StorageImpl* storage) {
  WeakStorage weak(c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(storage));
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& escaped = registry().escaped;
  if (escaped.size() >= 256 && (escaped.size() & (escaped.size() - 1)) == 0) {
    for (auto it = escaped.begin(); it != escaped.end();)
      it = it->second.use_count() == 0 ? escaped.erase(it) : std::next(it);
  }
  if (escaped.find(storage) == escaped.end()) escaped.emplace(storage, std::move(weak));
}

// Somebody is about to write through, or to take, a raw pointer: torch calls this before it gives
// one away.
inline void on_access(c10::StorageImpl* storage) {
  settle_storage(storage, /*written=*/true, Reason::kMemory, "");
  if (!Paused::active()) note_escape(storage);
}

inline void watch(c10::StorageImpl& storage) {
  if (!storage.has_materializer()) storage.set_materializer(&on_access);
}

inline c10::DataPtr no_memory() { return c10::DataPtr(nullptr, c10::Device(c10::kCPU)); }

inline constexpr auto kPendingKeys =
    c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutocastCPU}) |
    c10::DispatchKeySet(kBit);

inline PendingStorage::PendingStorage(size_t bytes, Trace& trace, int slot)
    : StorageImpl(use_byte_size_t(),
                  c10::SymInt(c10::SymInt::UNCHECKED, static_cast<int64_t>(bytes)), no_memory(),
                  c10::GetCPUAllocator(), /*resizable=*/true),
      trace_(&trace),
      slot_(slot) {
  set_materializer(&on_access);
}

inline void PendingStorage::forget() {
  if (!trace_.load(std::memory_order_acquire)) return;
  std::lock_guard<std::mutex> lock(registry().mutex);
  if (Trace* trace = trace_.exchange(nullptr))
    trace->slots[static_cast<size_t>(slot_)].storage = nullptr;
}

inline PendingTensor::PendingTensor(c10::Storage&& storage, const Layout& layout, Trace& trace,
                                    int slot)
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
inline void PendingTensor::forget() {
  if (!trace_.load(std::memory_order_acquire)) return;
  std::lock_guard<std::mutex> lock(registry().mutex);
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

// The result that a slot is created for; its view is up to the caller.
inline at::Tensor pending_tensor(Trace& trace, const Layout& layout) {
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

// An input's values become pending too: its memory is set aside, its only tensor gets the bit.
inline void defer_write(Trace& trace, Slot& slot, c10::TensorImpl& tensor) {
  slot.written = true;
  slot.memory = std::move(slot.kept->memory);
  slot.storage->set_data_ptr_noswap(no_memory());
  slot.kept.reset();
  give_bit(tensor);
  trace.bearers.add(weakly(tensor));
}

}  // namespace torchy
