// The functions that Python calls through ctypes, as text: names, and in letters what they take.
#pragma once

#include <string>

namespace torchy {

std::string functions_as_text();

}  // namespace torchy
