// A flush that can be run again, op by op, as eager would have run it.
#pragma once

#include <memory>
#include <vector>

#include "session.h"

namespace torchy {

// Holds what was recorded, and no tensor: its inputs are given when it runs again.
class Replay {
 public:
  // Of a flush that has begun, and has not dropped an input yet.
  explicit Replay(const Trace& trace) TORCHY_REQUIRES(shared_mutex);

  // Gives it memory of an input: not owned, and written to where the trace does.
  void give(size_t slot, void* memory);

  // Gives it all inputs as they were before the flush, if they are kept.
  void give_all();

  // Runs an op on what is there, then drops what is not needed any more; in nanoseconds, without
  // dispatch. Ops come in order.
  int64_t run(size_t op, const std::vector<int64_t>& release);

  // Where each slot's memory is; 0: it has none (yet).
  const std::vector<int64_t>& addresses() const { return trace_.addresses; }

  // Drops all that it made.
  void drop();

  // Lets go of the inputs as they were: before the flush ends, or those that it reads count as
  // shared.
  void let_go() { before_.reset(); }

 private:
  std::shared_ptr<const Before> before_;
  std::shared_ptr<Roots> roots_;
  Trace trace_;
};

// What an op on a few elements takes below torch's dispatch, as replays time them; nanoseconds.
int64_t tiny_call();

}  // namespace torchy
