// Computes what is pending on a storage before something reads it that is no recorded op.
#pragma once

#include "session.h"

namespace torchy {

// Flushes whatever is pending on a storage, or, if it is about to be written, whatever still has to
// read it.
void settle_storage(c10::StorageImpl* storage, bool written, Reason reason,
                    const std::string& text);

void note_escape(c10::StorageImpl* storage);

// The walker is asked whenever torch gives away a raw pointer to a storage that it watches.
void watch_access();

}  // namespace torchy
