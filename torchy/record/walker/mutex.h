// Mutexes, and words for what they guard, which clang checks (-Wthread-safety).
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TORCHY_ANNOTATION(word) __attribute__((word))
#else
#define TORCHY_ANNOTATION(word)
#endif

// Of data: read and written only while the mutex is held.
#define TORCHY_GUARDED_BY(mutex) TORCHY_ANNOTATION(guarded_by(mutex))
// Of functions: called while it is held; and left to the reader.
#define TORCHY_REQUIRES(mutex) TORCHY_ANNOTATION(requires_capability(mutex))
#define TORCHY_UNCHECKED TORCHY_ANNOTATION(no_thread_safety_analysis)

namespace torchy {

class TORCHY_ANNOTATION(capability("mutex")) Mutex {
 public:
  void lock() TORCHY_ANNOTATION(acquire_capability()) { mutex_.lock(); }
  void unlock() TORCHY_ANNOTATION(release_capability()) { mutex_.unlock(); }

 private:
  friend class UniqueLock;
  std::mutex mutex_;
};

// Holds a mutex until the end of a block.
class TORCHY_ANNOTATION(scoped_lockable) Lock {
 public:
  explicit Lock(Mutex& mutex) TORCHY_ANNOTATION(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~Lock() TORCHY_ANNOTATION(release_capability()) { mutex_.unlock(); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  Mutex& mutex_;
};

// The same; may release it before, and wait.
class TORCHY_ANNOTATION(scoped_lockable) UniqueLock {
 public:
  explicit UniqueLock(Mutex& mutex) TORCHY_ANNOTATION(acquire_capability(mutex))
      : lock_(mutex.mutex_) {}
  ~UniqueLock() TORCHY_ANNOTATION(release_capability()) = default;
  UniqueLock(const UniqueLock&) = delete;
  UniqueLock& operator=(const UniqueLock&) = delete;

  void release() TORCHY_ANNOTATION(release_capability()) { lock_.unlock(); }

  // Without the mutex; holds it again afterwards.
  void wait(std::condition_variable& changed) { changed.wait(lock_); }

 private:
  std::unique_lock<std::mutex> lock_;
};

// Guards all that sessions, traces and places share. Nothing waits while holding it: no Python, no
// kernel, no destructor of a tensor, and no strong reference made of a weak one: to what Python
// holds, that takes the GIL.
inline Mutex shared_mutex;

}  // namespace torchy
