#include "fork.h"

#include <pthread.h>

#include <array>

#include "claim.h"
#include "pool.h"
#include "session.h"

namespace torchy {

namespace {

std::array<Mutex*, 4> all_mutexes() {
  return {&claims().mutex(), &shared_mutex, &Pool::get().mutex(), &News::mutex()};
}

void lock_all() TORCHY_UNCHECKED {
  for (auto* mutex : all_mutexes()) mutex->lock();
}

void unlock_all() TORCHY_UNCHECKED {
  for (auto* mutex : all_mutexes()) mutex->unlock();
}

void renew_in_child() TORCHY_UNCHECKED {
  // it still counts those who waited in the parent
  static_cast<void>(registry().flushed.release());
  registry().flushed = std::make_unique<std::condition_variable>();
  Pool::get().forget_after_fork();
  unlock_all();
}

}  // namespace

void guard_forks() { pthread_atfork(&lock_all, &unlock_all, &renew_in_child); }

}  // namespace torchy
