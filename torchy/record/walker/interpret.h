// A flush at a place for the first time: the ops run one by one, in order, as eager would have run
// them. Nobody plans. Dead ops are left out, and memory goes after its last use.
#pragma once

#include "session.h"

namespace torchy {

void flush(Session& session, Reason reason, const std::string& text);

// The same for Python, which goes on with what the walker cannot do by itself: kNo then.
Repeated flush_for_python(Session& session, const std::string& text);

}  // namespace torchy
