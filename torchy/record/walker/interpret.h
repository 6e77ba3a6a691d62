// Flushes at a place where there have been few: the ops run one by one, in order, as eager would
// have run them. Nobody plans. Dead ops are left out, and memory goes after its last use.
#pragma once

#include <atomic>

#include "session.h"

namespace torchy {

// Flushes at a place are interpreted until they have cost so many seconds an op that a plan could
// have spared. Python tells how many.
inline std::atomic<double> planning_seconds = 0;

void flush(Session& session, Reason reason, const std::string& text);

// The same for Python, which goes on with what the walker cannot do by itself: kNo then.
Repeated flush_for_python(Session& session, const std::string& text);

}  // namespace torchy
