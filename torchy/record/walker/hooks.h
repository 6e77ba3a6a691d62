// Functions that Python calls in the place of torch's own in C: first one of Torchy's, while a
// session is open, then torch's. These have no frame in Python: what torch's function warns of is
// the program's line still.
#pragma once

#include <atomic>
#include <cstdint>

#include "python.h"

namespace torchy {

// How many sessions are open: hooks outlive them.
inline std::atomic<int64_t> open_sessions{0};

// A method of `owner`, if `is_method`; else a function whose __self__ that is. Null, with an
// exception set, if it cannot be made. Call with the GIL held.
PyObject* make_hook(const char* name, const char* doc, PyObject* before, PyObject* original,
                    bool is_method, PyObject* owner, PyObject* module);

}  // namespace torchy
