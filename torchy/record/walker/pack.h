// A kernel's arguments for the layouts of one recording: see codegen/cpu/driver.py, which says how
// they lie, and codegen/cpu/kernel.py, whose `pack` this agrees with.
#pragma once

#include "codes.h"
#include "trace.h"

namespace torchy {

// Reads a step's words one after another.
struct Cursor {
  const int64_t* at;
  int64_t next() { return *at++; }
  c10::IntArrayRef list(int64_t width = 1) { return take(next() * width); }
  c10::IntArrayRef take(int64_t count) {
    at += count;
    return {at - count, static_cast<size_t>(count)};
  }
};

// Lays out a kernel's arguments for the layouts of this recording, without addresses and numbers,
// or tells why they are none that it may be launched for. They stay laid out in the program: while
// no layout changes, this only looks whether one has.
Refusal prepare(const Trace& trace, Cursor cursor);

// Launches a kernel that has been prepared.
void launch(const Trace& trace, Cursor cursor, int64_t kernel);

}  // namespace torchy
