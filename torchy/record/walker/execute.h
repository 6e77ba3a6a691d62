// Runs a flush: the steps of a program (see run/program.py), each a kernel or a call of one op.
#pragma once

#include <memory>

#include "session.h"

namespace torchy {

enum class Progress : int64_t { kDone = 0, kPause = 1 };

// Runs steps from where the trace stands; now and then comes back, so that Python sees its signals.
Progress execute(Trace& trace, const int64_t* program, int64_t size);

// For Python: goes on with the flush of that number in its session, if it still runs.
int64_t execute_program(int64_t session_id, int64_t serial, int64_t program, int64_t size);

// Called in the midst of a flush, now and then; false: the flush is left where it stands.
using Pause = bool (*)(Session& session);

// Runs a flush that has begun the way it was run before, without Python. It is left where it stands
// if a step raises, or if `pause` says no.
Repeated repeat(Session& session, const std::shared_ptr<Trace>& trace, Reason reason,
                const std::string& text, Pause pause);

}  // namespace torchy
