// Forks: the child has the thread that forks, and no other. A mutex that another one has locked
// would stay locked for ever, so all are taken before, in the order in which they nest.
#pragma once

#include <pthread.h>

#include <array>

#include "claim.h"

namespace torchy {

inline std::array<std::mutex*, 4> all_mutexes() {
  return {&claims().mutex(), &registry().mutex, &Pool::get().mutex(), &News::mutex()};
}

inline void unlock_all() {
  for (auto* mutex : all_mutexes()) mutex->unlock();
}

inline void guard_forks() {
  pthread_atfork(
      [] {
        for (auto* mutex : all_mutexes()) mutex->lock();
      },
      &unlock_all,
      [] {
        // it still counts those who waited in the parent
        static_cast<void>(registry().flushed.release());
        registry().flushed = std::make_unique<std::condition_variable>();
        Pool::get().forget_after_fork();
        unlock_all();
      });
}

}  // namespace torchy
