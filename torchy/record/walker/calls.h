// What Python calls with objects, or often: functions as Python itself has them, which cost a tenth
// of what ctypes does. They are called with the GIL, by Torchy alone.
#pragma once

#include <memory>
#include <string>

#include "keys.h"
#include "python.h"
#include "session.h"

namespace torchy {

inline std::shared_ptr<Session> session_of(int64_t id) {
  const Lock lock(shared_mutex);
  return registry().find(id);
}

inline void attach(std::shared_ptr<Session> session) {
  if (session) ++session->attached;
  if (this_session) --this_session->attached;
  this_session = std::move(session);
  set_thread_bit(this_session != nullptr);
}

// Nested; -1 ends all: an interrupt may have come between a pause and its end.
void pause(int64_t on);

// Null, with an exception set, if there is none of that name.
PyObject* python_call(const std::string& name);

}  // namespace torchy
