// Places: what is known of the program, without sizes.
//
// A Signature is an op with the dtypes, ranks and constants of its arguments. It remembers whether
// the op may be deferred and, for the layouts seen last, the layouts of its results. It is shared
// by all places. A Step is a signature at a place: it adds which slots and views of the trace the
// operands are. A Node is a step whose operands lie in memory in a certain pattern (Modes). A trace
// is a path of nodes.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <c10/util/SmallVector.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "codes.h"

namespace torchy {

using Words = std::vector<uint64_t>;

struct WordsHash {
  template <typename Word>
  size_t operator()(const std::vector<Word>& words) const {
    uint64_t hash = 1469598103934665603ull;
    for (auto word : words) hash = (hash ^ static_cast<uint64_t>(word)) * 1099511628211ull;
    return hash ^ hash >> 32;  // the low bits of words that are multiples count too
  }
};

class Caller;

// An argument of an op whose elements eager checks: each is an index into a dimension of another
// argument, or is to be ignored. All are numbers of arguments; -1: none.
struct Indices {
  int argument = -1, into = -1;
  int dimension_argument = -1, ignored = -1;
  int64_t dimension = 0;  // if no argument tells it; counts from the end if it is negative
};

// What is known of an operator once and for all; the policy fills it in at first sight.
struct OpInfo {
  explicit OpInfo(const c10::OperatorHandle& handle);
  c10::OperatorHandle op;
  std::string name;  // as the dispatcher spells it: aten::add.Tensor
  int64_t id = 0;
  size_t arguments = 0;
  size_t results = 0;
  uint64_t writes = 0;               // a bit for each argument that the schema says is written to
  std::vector<int> result_argument;  // the argument a result is an alias of, or -1 if it is fresh
  bool fresh_tensors = false;        // all results are tensors
  bool allocates = false;            // a result is no alias of an argument
  // Written last: what follows is read only once it is known.
  std::atomic<OpClass> op_class = OpClass::kUnknown;
  bool pointwise = false;
  bool fusable = false;                  // a plan may find a kernel for it
  bool typed = false;                    // it arrives unboxed, see typed.h
  std::shared_ptr<const Caller> caller;  // calls it unboxed, see caller.h
  bool minds_precision = true;           // its kernel may ask for the precision of float32 products
  bool asks = false;                     // the policy has a say on each of its signatures
  LayoutRule rule = LayoutRule::kLearn;
  const c10::KernelFunction* meta = nullptr;  // the op's meta kernel, if it is one of a few
  uint64_t runtime_numbers = 0;  // a bit for each argument whose value is not part of the place
  uint64_t unless_one = 0;       // those of them whose being one is part of it
  uint64_t hidden_writes = 0;    // arguments written to, though the schema does not say so
  Indices indices;
  // The session in which it ran at once last, how often it has, and which time was noted last and
  // will be next: see NotedNow.
  std::atomic<int64_t> ran_in = -1;
  std::atomic<int64_t> ran_now = 0, noted = 0, noted_next = 0;

  // The op has been defined anew: with another schema, perhaps.
  void refresh();

  bool runtime(size_t argument, const c10::IValue& value) const {
    return has(runtime_numbers, argument) && !(has(unless_one, argument) && is_one(value));
  }
  bool written(size_t argument) const { return has(writes | hidden_writes, argument); }
  bool may_be_runtime(size_t argument) const { return has(runtime_numbers, argument); }
  bool minds_one(size_t argument) const { return has(unless_one, argument); }

 private:
  void read_schema();
  static bool is_one(const c10::IValue& value) {
    return value.isScalar() && value.toScalar().equal(1);
  }
  static bool has(uint64_t bits, size_t index) { return index < 64 && (bits >> index & 1) != 0; }
};

// Ranks up to this need no memory of their own.
using Dims = c10::SmallVector<int64_t, 5>;

struct Layout {
  Dims sizes, strides;
  c10::ScalarType dtype = c10::ScalarType::Undefined;  // Undefined: no tensor
  size_t bytes = 0;
  int64_t elements = 0;
  bool contiguous = false;

  bool same_as(const Layout& other) const {
    return sizes == other.sizes && strides == other.strides && dtype == other.dtype;
  }
};

// For one set of operand layouts: what the results look like.
struct Memo {
  std::vector<Layout> results;  // those that alias an argument too
  std::vector<uint8_t>
      pattern;  // a mode for each operand, then the result's; ranks and dtypes of the results
};

enum class Verdict : int { kUnknown = 0, kDefer = 1, kRunNow = 2 };

struct Signature {
  Verdict verdict = Verdict::kUnknown;
  LayoutRule rule = LayoutRule::kLearn;
  std::vector<c10::ScalarType>
      result_dtypes;  // known once the real op has accepted this combination
  // By the operands' sizes and strides, one after another. Forgotten when there are too many: a
  // program whose sizes all differ.
  static constexpr size_t kMostMemos = 512;
  std::unordered_map<std::vector<int64_t>, Memo, WordsHash> memos;
};

struct Node;

// What is known of an operand at its place.
struct Operand {
  int view, slot, rank;
  c10::ScalarType dtype;
  bool written;
};

struct Step {
  Words key;
  int64_t id = 0;
  OpInfo* info = nullptr;
  Signature* signature = nullptr;
  bool grad_mode = false;
  std::vector<c10::IValue> arguments;  // an operand is an empty meta tensor here
  std::vector<Operand> operands;       // in the order of the arguments
  size_t numbers = 0;                  // how many the trace has before this step
  int64_t line = -1;                   // of the program: see source.h
  std::vector<std::unique_ptr<Node>> variants;
};

// A flush that Python has seen: for the same reason, with the same buffers live, the walker runs
// the same program again.
struct Script {
  int64_t id = 0, variant = 0;
  int64_t reason = 0;
  std::string text;
  std::vector<uint8_t> flags;  // of the slots
  const int64_t* program = nullptr;
  int64_t size = 0;
  int64_t origin = -1;            // of what is recorded next
  int64_t ops = 0;                // of the trace
  std::vector<int64_t> unstored;  // slots that never get memory
  std::vector<int64_t> moved;     // views that the fused ops read or write, one by one
  std::vector<int64_t> checks;    // views like those that its kernels write truths to, see births.h
  int64_t alarms = 0;             // flushes in which these said something
  int refusals = 0;               // flushes in a row in which a kernel was not launched
  bool busy = false;              // a program's arguments serve one flush at a time
  std::shared_ptr<const std::vector<int64_t>> words;  // of the last flush
  int64_t bytes_moved = 0;                            // with those

  bool matches(const Script& other) const {
    return variant == other.variant && reason == other.reason && flags == other.flags &&
           text == other.text;
  }
};

// A strided window on a slot's memory.
struct View {
  int slot, previous;  // previous view of the same slot
  size_t at;           // in Trace::words: offset, sizes, strides
  uint8_t rank;
  c10::ScalarType dtype;
};

// An op at a place with operands of just these sizes, or of others if it stretches: all that is
// compared when it comes again, and all that it then adds to the trace. See expect.h.
struct Expectation {
  // What is known of an operand.
  struct Operand {
    enum From : uint8_t {
      kKnown,
      kNew,
      kAgain
    };  // a slot of the trace, of this operand, of another
    uint64_t keys;  // of its dispatch, exactly
    From from;
    bool written, inference;
    bool adds_view;   // else it is one of the trace's
    bool any_offset;  // nothing else of this op is on its storage
    bool plain;       // contiguous, without dimensions of a single element or none
    int slot, view;
    int64_t offset;
    size_t layout;  // where in layouts
    size_t rank;
  };
  Node* node = nullptr;  // where it leads to
  std::vector<Operand> operands;
  std::vector<int64_t> layouts;  // sizes and strides of the operands
  std::vector<View> views;       // that are added
  std::vector<int64_t> words;    // the same
  std::vector<Layout> results;   // that are fresh
  size_t result_bytes = 0;
  bool floating = false;  // dtypes that any number fits that fits a float32
  bool harmless = false;  // the numbers that are part of the place fit any dtype
  // Each operand is plain and of the op's sizes, or has no dimension, and so are the results: with
  // other sizes, all that changes is these sizes.
  bool stretches = false;

  c10::IntArrayRef sizes(const Operand& operand) const {
    return {layouts.data() + operand.layout, operand.rank};
  }
};

struct Node {
  int64_t id = 0;
  std::atomic<int64_t> flushes = 0;   // that ended here
  std::atomic<int64_t> refusals = 0;  // how often kernels have refused a few times in a row
  // Nanoseconds that these took, interpreted, for what a plan could spare.
  std::atomic<int64_t> spent = 0;
  Step* step = nullptr;  // none at a root
  std::vector<uint8_t> pattern;
  std::vector<int> result_views, result_slots;  // -1 for an undefined tensor
  std::vector<std::unique_ptr<Step>> children;
  Step* last = nullptr;
  std::vector<std::shared_ptr<Script>> scripts;            // of flushes that ended here
  std::vector<std::unique_ptr<Expectation>> expectations;  // of ops that come next
  Expectation* expected = nullptr;                         // the one met last

  Step* find(const Words& key);
};

}  // namespace torchy
