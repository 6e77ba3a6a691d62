// Sessions, and what the process has one of: the registry, with all places.
#pragma once

#include <c10/util/flat_hash_map.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "births.h"
#include "log.h"
#include "mutex.h"
#include "pace.h"
#include "ran_now.h"
#include "trace.h"

namespace torchy {

// What Python reads of a flush that is running.
struct Running {
  TORCHY_RECORD(TORCHY_NUMBER)
  std::vector<int64_t> path, words, numbers, times;
  std::vector<uint8_t> flags;
};

struct Session;

// Whether recording pays in the sessions that begin at one place of the program.
struct Paces {
  Pace sessions;                     // as a whole; and, if they are longer than that makes sense,
  Pace looks;                        // of what comes between two looks at a value,
  const Session* looking = nullptr;  // in one of them at a time
};

struct Session {
  int64_t id = 0;
  SessionMode mode = SessionMode::kRecord;
  size_t max_ops = 1024, slack_bytes = 16 << 20;

  // What flushes are run by.
  struct Settings {
    int64_t variant = 0;      // of what they run: scripts of others do not count
    bool interprets = false;  // first flushes need no plan
    bool skip_dead = true;
    bool may_sleep = false;
    bool watched = false;  // Python sees each flush, before it runs and after
  } settings TORCHY_GUARDED_BY(shared_mutex);

  // What is recorded; and what is being flushed, or was left by a flush that failed.
  std::shared_ptr<Trace> trace TORCHY_GUARDED_BY(shared_mutex);
  std::shared_ptr<Trace> running TORCHY_GUARDED_BY(shared_mutex);
  // Where the next trace begins: the place, if that is known, and its number; -1: ask.
  Node* root TORCHY_GUARDED_BY(shared_mutex) = nullptr;
  int64_t origin TORCHY_GUARDED_BY(shared_mutex) = -1;
  // Whether what is born of its ops is looked at, and what has been, first, of one that ran at
  // once.
  std::atomic<bool> hunts{false}, born{false};
  std::optional<Birth> birth TORCHY_GUARDED_BY(shared_mutex);
  // Ops that it runs at once though they could be deferred, by names like "_softmax"; and whether
  // there are any.
  std::set<std::string> never TORCHY_GUARDED_BY(shared_mutex);
  std::atomic<bool> picks{false};
  // The thread that flushes; and the state that it must restore, its own alone.
  std::thread::id flusher TORCHY_GUARDED_BY(shared_mutex);
  std::optional<ProcessState> outer_state;
  std::optional<PrecisionFor> precision;

  Log log TORCHY_GUARDED_BY(shared_mutex);
  RanNow ran_now TORCHY_GUARDED_BY(shared_mutex);
  Balance balance TORCHY_GUARDED_BY(shared_mutex);
  // If it may sleep: what is known of the place where it begins.
  std::shared_ptr<Paces> paces TORCHY_GUARDED_BY(shared_mutex);
  Pace::Time began TORCHY_GUARDED_BY(shared_mutex);
  // Flushes of what has been met before, but has no plan yet or waits for kernels.
  int64_t settling TORCHY_GUARDED_BY(shared_mutex) = 0;
  // A trace has become too long since the last look: the next one begins at that, so that a loop
  // comes by the same places each time. Its thread's alone, as is what follows.
  bool drifts = false;
  // Ops run at once, in a trial of how long they take then.
  bool napping = false;
  Counters counters;         // some are the recording thread's, which has no lock then
  int64_t run_now_told = 0;  // of that counter, when Python was told last

  // The pace of what comes between its looks; null if another session's are compared.
  Pace* looks() const TORCHY_REQUIRES(shared_mutex) {
    return paces && paces->looking == this ? &paces->looks : nullptr;
  }

  // Whether recording was faster when that was tried between its looks.
  bool pays() const TORCHY_REQUIRES(shared_mutex) { return looks() && looks()->pays(); }

  // How many threads record into it: it is not let go of then.
  std::atomic<int64_t> attached{0};

  // Its flushes so far; and what it has been like since there were so many.
  struct Flushes {
    int64_t all = 0, repeated = 0, settling = 0;
  } at_last_look TORCHY_GUARDED_BY(shared_mutex);
  Flushes flushes() const TORCHY_REQUIRES(shared_mutex) {
    return {counters.flushes, counters.repeated, settling};
  }
  Piece since(const Flushes& before) const TORCHY_REQUIRES(shared_mutex);

  // Whether it has values to compute still.
  bool owes() const TORCHY_REQUIRES(shared_mutex) {
    return running || (trace && !trace->path.empty());
  }

  // Whether it runs an op at once that it could defer, or could defer what that is made of.
  bool passes_by(const OpInfo& info) const {
    return picks.load(std::memory_order_relaxed) && is_never(info);
  }
  bool is_never(const OpInfo& info) const;

  bool too_long() const TORCHY_REQUIRES(shared_mutex) { return trace->path.size() >= max_ops; }

  // Whether the trace keeps too much memory alive. Asked before an op is recorded: what the last
  // one's result replaces is gone by then.
  bool too_large() TORCHY_REQUIRES(shared_mutex);

  // Whether the trace keeps much that eager would have let go of by now: an op that is about to
  // run by itself may want as much.
  bool keeps_much() const TORCHY_REQUIRES(shared_mutex);

  // By how much a flush may exceed what eager would have held.
  size_t allowance(const Trace& of) const { return std::max(slack_bytes, of.peak / 20); }

  // The bytes that a flush would need now; what eager would hold counts towards its peak.
  size_t weigh() TORCHY_REQUIRES(shared_mutex);

  static constexpr size_t kNoticed = size_t{1} << 20;  // what is smaller is weighed now and then
};

// Where traces begin, by number; all places hang on them. A replay holds those of its trace, though
// they are forgotten.
using Roots = std::unordered_map<int64_t, std::unique_ptr<Node>>;

struct Registry {
  std::vector<std::shared_ptr<Session>> sessions TORCHY_GUARDED_BY(shared_mutex);
  // When the first of them was opened: see Pool::now.
  uint64_t opened TORCHY_GUARDED_BY(shared_mutex) = 0;
  // Told when a flush ends. While a thread forks, no other one flushes.
  std::unique_ptr<std::condition_variable> flushed = std::make_unique<std::condition_variable>();
  std::thread::id forker TORCHY_GUARDED_BY(shared_mutex);

  // Ops, by number and by name.
  std::vector<std::unique_ptr<OpInfo>> ops TORCHY_GUARDED_BY(shared_mutex);
  std::unordered_map<c10::OperatorName, OpInfo*> op_of_name TORCHY_GUARDED_BY(shared_mutex);
  std::unordered_map<Words, std::unique_ptr<Signature>, WordsHash> signatures
      TORCHY_GUARDED_BY(shared_mutex);

  // Places; from how many on they are forgotten, when that is possible; and how often all were.
  std::shared_ptr<Roots> roots TORCHY_GUARDED_BY(shared_mutex) = std::make_shared<Roots>();
  std::vector<Node*> nodes TORCHY_GUARDED_BY(shared_mutex);
  std::vector<Step*> steps TORCHY_GUARDED_BY(shared_mutex);
  size_t most_places TORCHY_GUARDED_BY(shared_mutex) = 40'000;
  std::atomic<int64_t> epoch = 0;

  // By where sessions begin: whether recording pays there.
  std::unordered_map<int64_t, std::shared_ptr<Paces>> paces TORCHY_GUARDED_BY(shared_mutex);

  // Traces that are empty again: as long as they were, most others are.
  std::vector<std::shared_ptr<Trace>> spare TORCHY_GUARDED_BY(shared_mutex);

  // Storages to which a raw pointer has left torch.
  ska::flat_hash_map<c10::StorageImpl*, WeakStorage> escaped TORCHY_GUARDED_BY(shared_mutex);

  std::shared_ptr<Session> find(int64_t id) TORCHY_REQUIRES(shared_mutex);

  std::shared_ptr<Trace> empty_trace() TORCHY_REQUIRES(shared_mutex);

  // Keeps a trace for the next session or flush, unless it is running, or somebody has it still;
  // drops what it holds.
  void give_back(std::shared_ptr<Trace> trace);

  bool flushes(std::thread::id thread) const TORCHY_REQUIRES(shared_mutex) {
    for (const auto& session : sessions)
      if (session->flusher == thread) return true;
    return false;
  }

  // Whether a thread must not begin a flush: another one forks. One that is within a flush may, or
  // that would never end.
  bool held_up(std::thread::id thread) const TORCHY_REQUIRES(shared_mutex) {
    return forker != std::thread::id() && forker != thread && !flushes(thread);
  }
};

inline Registry& registry() {
  static Registry* instance =
      std::make_unique<Registry>().release();  // lives as long as the process
  return *instance;
}

inline thread_local std::shared_ptr<Session> this_session;

// Whether any session has ever been opened whose results all carry the bit.
inline std::atomic<bool> carries_all{false};

// A torch op with a Python kernel, so that exceptions pass through as what they are.
inline bool& listening() {
  static bool value = false;
  return value;
}

int64_t ask(Ask what, int64_t session, int64_t argument, const std::string& text = "");

// The program's line on this thread, and the number of the root for what is recorded from there on.
std::pair<int64_t, int64_t> where_here();

// What is known of the sessions that begin at a place.
std::shared_ptr<Paces> paces_at(int64_t origin) TORCHY_REQUIRES(shared_mutex);

// What becomes of a session that has looked at a value.
enum class AfterLook {
  kGoesOn,
  kNaps,  // begin_nap, once what is pending has been computed: a trial records nothing
  kSleeps,
};

// The calling thread's session has looked at a value.
AfterLook note_look(Session& session);

// What was pending has been computed, or could not be: a trial begins in which the session's ops
// run at once, unless that is put off.
void begin_nap(Session& session);

// Which sessions have a storage in a trace, and whether one of them owes it values.
std::vector<std::shared_ptr<Session>> holders(c10::StorageImpl* storage, bool* pending)
    TORCHY_REQUIRES(shared_mutex);

}  // namespace torchy
