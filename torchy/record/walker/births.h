// Whether NaNs and infinities are born of an op: they are in its results, but not in what it was
// given.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>

#include <memory>
#include <vector>

#include "trie.h"

namespace torchy {

struct Session;
struct Trace;

// What an op that ran at once has given birth to, and what it was given.
struct Birth {
  const OpInfo* info = nullptr;
  int64_t line = -1, epoch = 0;
  int64_t recorded = 0;  // ops of its session, before it
  int kinds = 0;         // of Odd
  std::vector<at::Tensor> operands;
};

// Of results, given what was in the operands: a NaN that no operand had, or an infinity where all
// was finite.
int born_of(int operands, int results);

// Looks at the results of a call in a flush, if that is hunted; at what it overwrites before.
class Hunt {
 public:
  Hunt(Trace& trace, int64_t op);
  void look(Trace& trace) const;

 private:
  const Node* node_ = nullptr;  // null: nobody wants to know
  int before_ = 0;
};

// Kernels may check what they compute: for each check they write truths to a slot of its own. Adds
// these to a flush that has not run, once, with a view each that is like one of the trace's,
// without gaps.
void add_checks(Trace& trace, const std::vector<int64_t>& like);

// Keeps the inputs of a flush that has not run, once.
void keep_inputs(Trace& trace);

// Whether a call of a flush that has run has given birth, or one of its checks says so. `alarms`
// counts how often that was: the first ones count, then every second, fourth, eighth, ...
bool is_suspect(const Trace& trace, int64_t& alarms);

// The same of an op that runs now: the first birth of its session is kept.
class HuntNow {
 public:
  HuntNow(const Session* session, const OpInfo& info, const torch::jit::Stack& stack);
  void look(const torch::jit::Stack& stack) const;

 private:
  std::shared_ptr<Session> session_;  // null: nobody wants to know
  const OpInfo* info_ = nullptr;
  std::vector<at::Tensor> operands_;  // what it overwrites as it was
  int before_ = 0;
};

}  // namespace torchy
