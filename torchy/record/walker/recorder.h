// Records one op: finds its place, makes its pending results.
#pragma once

#include <ATen/core/stack.h>

#include <optional>
#include <vector>

#include "numbers.h"
#include "session.h"

namespace torchy {

enum Tag : uint64_t {  // the highest bits of a key's words
  kTensorTag = uint64_t{1} << 60,
  kNumberTag = uint64_t{2} << 60,
  kWrappedTag = uint64_t{3} << 60,
  kConstantTag = uint64_t{4} << 60,
  kListTag = uint64_t{5} << 60
};

enum class Outcome {
  kRecorded,
  kFull,
  kRunNow,
  kOtherState,
  kNeedsRoot,
  kNeedsLine,
  kNeedsVerdict,
  kNeedsLayout
};

// One attempt to record one op. Nothing is changed until everything is known; the caller asks
// whoever can help if something is missing, and tries again.
class Recorder {
 public:
  Recorder(Session& session, OpInfo& info, const torch::jit::Stack& stack);

  // `line` is that of the program, if it has been looked for: it is noted at a new place.
  Outcome attempt(Node* root, std::optional<int64_t> line) TORCHY_REQUIRES(shared_mutex);
  // Of an op that must run at once: what the last attempt has found.
  WhyNow why_now() const { return why_; }
  Step* step() const { return step_; }
  void learn(std::vector<Layout> results);
  c10::SmallVector<c10::IValue, 2>& results() { return results_; }

 private:
  struct Given {
    c10::TensorImpl* tensor;
    size_t argument;
    int slot, view;
    bool written;
  };

  // Kept between ops: what one op needs fits into what the last one left.
  struct Scratch {
    std::vector<Given> operands;
    std::vector<int64_t> numbers;
    Words key;                     // op, constants, and for each operand its slot and view
    std::vector<size_t> placed;    // where in the key the slots and views are
    std::vector<int64_t> layouts;  // sizes and strides of the operands
    Range range;                   // of all numbers

    void clear();
  };

  static Scratch& scratch() {
    thread_local Scratch instance;
    return instance;
  }

  bool read_arguments() TORCHY_REQUIRES(shared_mutex);
  bool read_argument(const c10::IValue& value, size_t index) TORCHY_REQUIRES(shared_mutex);
  bool read_tensor(const at::Tensor& tensor, size_t index) TORCHY_REQUIRES(shared_mutex);
  void read_number(const c10::IValue& value, size_t index);
  bool fit(c10::TensorImpl& tensor, const Slot* known) TORCHY_REQUIRES(shared_mutex);
  bool overlaps() const;
  bool in_range() const;
  Words signature_key() const;
  Step* add_step(Node* parent, int64_t line) TORCHY_REQUIRES(shared_mutex);
  void expect(Node* before, size_t slots, size_t views, size_t words,
              const std::vector<uint64_t>& keys);
  const Memo* find_memo() const;
  Node* variant(const Memo& memo) TORCHY_REQUIRES(shared_mutex);
  void commit(const Memo& memo, Node* node) TORCHY_REQUIRES(shared_mutex);

  Session& session_;
  Trace* trace_ = nullptr;  // since attempt() began
  OpInfo& info_;
  const torch::jit::Stack& stack_;
  size_t first_;
  Scratch& scratch_;
  Node* at_ = nullptr;
  Step* step_ = nullptr;
  bool any_pending_ = false, any_dimension_ = false;
  int new_slots_ = 0, new_views_ = 0;
  WhyNow why_ = WhyNow::kValues;
  c10::SmallVector<c10::IValue, 2> results_;
};

// Whether a trace may read a storage that it does not know later, or write to it.
bool fit_storage(c10::StorageImpl* storage) TORCHY_REQUIRES(shared_mutex);

// The word of a key that tells what an operand is, but for its slot and view.
uint64_t tensor_word(const OpInfo& info, const at::Tensor& tensor);

// The first word of a key: the op, and what of the process's state shapes its results.
uint64_t key_header(const OpInfo& info, const ProcessState& state);

// The trace reads a storage from now on.
void add_input(Trace& trace, c10::StorageImpl& storage) TORCHY_REQUIRES(shared_mutex);

}  // namespace torchy
