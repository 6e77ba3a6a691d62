// The begin and the end of a flush: what is live, under which state it runs, and how the values get
// into the program's storages.
#pragma once

#include <memory>
#include <utility>

#include "session.h"

namespace torchy {

// A thread is about to fork: waits until no other one flushes, and lets none begin until it lets
// go. What others were running would never end in the child. Not if it flushes itself: another one
// may wait for that.
void hold_flushes();

void let_flushes_go();

// A flush that raised leaves its trace behind, to be resumed by the next.
void leave_flush(Session& session);

// Begins a flush, or joins one. The trace, if it is the caller's.
std::pair<Claim, std::shared_ptr<Trace>> begin_flush(Session& session, bool wait);

// All values are there: put them into the storages of the program and take the bit off its tensors.
// Returns the nanoseconds that calls took; -1 if somebody else has finished it. `expected`: the
// trace, if that is known.
int64_t finish_flush(Session& session, int64_t origin, const Trace* expected = nullptr);

}  // namespace torchy
