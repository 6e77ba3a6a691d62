// The numbers that the walker and Python share, and the records whose fields have names on both
// sides: this table. Python's side of it (codes.py) is compared with it when the walker is loaded.
#pragma once

#include <cstdint>
#include <string>

// clang-format off

// What only Python can decide or do.
#define TORCHY_ASK(CODE) \
  CODE(Flush, 0) CODE(Place, 1) CODE(Classify, 2) CODE(Pace, 3) CODE(Pause, 4) CODE(Places, 5)

// Why a flush happens. Called: by Python, for a reason of its own.
#define TORCHY_REASON(CODE) \
  CODE(Operand, 0) CODE(Memory, 1) CODE(Length, 2) CODE(Bytes, 3) \
  CODE(State, 4) CODE(Write, 5) CODE(OtherThread, 6) CODE(Called, 7)

// What became of a flush that the walker was to run by itself. No: Python is to do it. The last
// two: done, and Python should mind something.
#define TORCHY_REPEATED(CODE) \
  CODE(No, 0) CODE(Yes, 1) CODE(MindPace, 2) CODE(MindPlaces, 3) CODE(MindNap, 4)

// Who runs a flush. Nothing: there is nothing to do. Ours: the caller. Within: the caller's thread is
// in the midst of it. Others: another thread is, and the caller, who may hold the GIL, must not wait.
#define TORCHY_CLAIM(CODE) \
  CODE(Nothing, 0) CODE(Ours, 1) CODE(Within, 2) CODE(Others, 3)

// How an op is treated. Draw: runs at once, but the walker may draw its random numbers. Mask: made of
// masked_fill_, if it writes one number where a mask says so; else it runs now.
#define TORCHY_OP_CLASS(CODE) \
  CODE(Unknown, 0) CODE(RunNow, 1) CODE(Metadata, 2) CODE(Descend, 3) CODE(Defer, 4) CODE(Draw, 5) \
  CODE(Mask, 6)

// How the layouts of an op's results follow from those of its operands. Learn: as its own meta
// kernel says, if the walker knows that (Meta), else it is run. Iterate: as TensorIterator does.
#define TORCHY_LAYOUT_RULE(CODE) \
  CODE(Learn, 0) CODE(Iterate, 1) CODE(Meta, 2) CODE(Contiguous, 3) CODE(Preserve, 4)

#define TORCHY_SESSION_MODE(CODE) \
  CODE(Record, 0) CODE(PassThrough, 1) CODE(Carry, 2)

// What Python sees of a slot during a flush. Heavy, on the first slot: all that the flush needs at
// once is more than the bound allows.
#define TORCHY_SLOT_FLAG(CODE) \
  CODE(Created, 1) CODE(Written, 2) CODE(Live, 4) CODE(Heavy, 8)

// How an operand lies in memory, against the space of its op. Row, in kernels only: one element for
// each row. SameSizes: a bit beside the others.
#define TORCHY_MODE(CODE) \
  CODE(Linear, 0) CODE(Scalar, 1) CODE(Unit, 2) CODE(Repeat, 3) CODE(Strided, 4) CODE(Row, 5) \
  CODE(SameSizes, 8)

// Why a kernel is not launched for the layouts that have come: its ops are called then.
#define TORCHY_REFUSAL(CODE) \
  CODE(Fits, 0) CODE(Layout, 1) CODE(OneRow, 2) CODE(Long, 3)

// Why an op runs at once. Policy: it is none that is recorded. Signature: not with these arguments.
// Operand: one of them cannot be recorded. Shared: something outside torch sees an operand's
// memory. Single: single elements, which are there. Sizes: that shows how its results lie. Values:
// eager checks them. State: of the process. Busy: other threads keep flushing. Never: its session
// is not to defer it.
#define TORCHY_WHY_NOW(CODE) \
  CODE(Policy, 0) CODE(Signature, 1) CODE(Operand, 2) CODE(Shared, 3) CODE(Single, 4) \
  CODE(Sizes, 5) CODE(Values, 6) CODE(State, 7) CODE(Busy, 8) CODE(Never, 9)

// Which script runs a flush, where it is none that Python has given.
#define TORCHY_SCRIPT_ID(CODE) \
  CODE(NoScript, -1) CODE(Interpreted, -2)

// Where a session begins, if not at the place of a number. Rests: less the number, where it may as
// well sleep.
#define TORCHY_SESSION_PLACE(CODE) \
  CODE(Nowhere, -1) CODE(Rests, -2)

// What a session has done so far.
#define TORCHY_COUNTERS(FIELD) \
  FIELD(recorded) FIELD(run_now) FIELD(places) FIELD(layouts) FIELD(policy_calls) \
  FIELD(flushes) FIELD(views) FIELD(repeated) FIELD(interpreted) FIELD(drawn)

// A flush that is running: numbers, then arrays.
#define TORCHY_RECORD(FIELD) \
  FIELD(script) FIELD(serial) FIELD(at) FIELD(visits) FIELD(refusals) FIELD(program) FIELD(size)
#define TORCHY_RECORD_ARRAYS(FIELD) \
  FIELD(path) FIELD(words) FIELD(numbers) FIELD(times) FIELD(flags)

// clang-format on

#define TORCHY_CODE(name, number) k##name = (number),
#define TORCHY_NUMBER(name) int64_t name = 0;

namespace torchy {

enum class Ask : int64_t { TORCHY_ASK(TORCHY_CODE) };
enum class Reason : int64_t { TORCHY_REASON(TORCHY_CODE) };
enum class Repeated : int64_t { TORCHY_REPEATED(TORCHY_CODE) };
enum class Claim : int64_t { TORCHY_CLAIM(TORCHY_CODE) };
enum class OpClass : int { TORCHY_OP_CLASS(TORCHY_CODE) };
enum class LayoutRule : int { TORCHY_LAYOUT_RULE(TORCHY_CODE) };
enum class SessionMode : int { TORCHY_SESSION_MODE(TORCHY_CODE) };
enum SlotFlag : uint8_t { TORCHY_SLOT_FLAG(TORCHY_CODE) };
enum Mode : uint8_t { TORCHY_MODE(TORCHY_CODE) };
enum class Refusal : int64_t { TORCHY_REFUSAL(TORCHY_CODE) };
enum class WhyNow : int64_t { TORCHY_WHY_NOW(TORCHY_CODE) };
enum ScriptId : int64_t { TORCHY_SCRIPT_ID(TORCHY_CODE) };
enum SessionPlace : int64_t { TORCHY_SESSION_PLACE(TORCHY_CODE) };

struct Counters {
  TORCHY_COUNTERS(TORCHY_NUMBER)
};

// The table as text, a line for each of its parts.
std::string codes_as_text();

}  // namespace torchy
