// What Python calls to watch flushes: what they are given and make, and running them again.
#pragma once

#include <string>

#include "python.h"

namespace torchy {

// Null if there is none of that name.
PyObject* watch_call(const std::string& name);

}  // namespace torchy
