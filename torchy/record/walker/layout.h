// Layouts of results, patterns of operands, and the process state that eager results depend on.
#pragma once

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/stack.h>
#include <ATen/ops/ones.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/Exception.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "keys.h"
#include "trie.h"

namespace torchy {

using Precision = std::array<at::Float32Precision, 3>;

// Which shortcuts matrix products, convolutions and recurrent layers may take on the CPU.
Precision float32_precision();

// The same for a while: an op without a setting of its own takes its library's, or the one of all.
class PrecisionFor {
 public:
  explicit PrecisionFor(const Precision& wanted);
  ~PrecisionFor() {
    for (size_t i = 0; i < before_.size(); ++i) set(i, before_[i]);
  }
  PrecisionFor(const PrecisionFor&) = delete;
  PrecisionFor& operator=(const PrecisionFor&) = delete;

 private:
  static constexpr size_t kOuter = 2;
  static constexpr std::array<std::pair<at::Float32Backend, at::Float32Op>, 5> kSettings{
      {{at::Float32Backend::GENERIC, at::Float32Op::ALL},
       {at::Float32Backend::MKLDNN, at::Float32Op::ALL},
       {at::Float32Backend::MKLDNN, at::Float32Op::MATMUL},
       {at::Float32Backend::MKLDNN, at::Float32Op::CONV},
       {at::Float32Backend::MKLDNN, at::Float32Op::RNN}}};

  static void set(size_t i, at::Float32Precision precision) {
    at::globalContext().setFloat32Precision(kSettings[i].first, kSettings[i].second, precision);
  }

  std::array<at::Float32Precision, 5> before_{};
};

bool flushes_denormals();

// Compared at each op: a change flushes first, and a flush runs under the state that the ops were
// recorded in.
struct ProcessState {
  c10::ScalarType default_dtype = c10::ScalarType::Float;
  int threads = 1;
  bool deterministic = false, warn_only = false, fill_memory = true, mkldnn = true, nnpack = true;
  unsigned control_word = 0;

  bool operator==(const ProcessState&) const = default;

  static ProcessState now();

  void apply() const;
};

bool dense(c10::IntArrayRef sizes, c10::IntArrayRef strides);

uint8_t mode_of(c10::IntArrayRef sizes, c10::IntArrayRef strides, const Layout& space,
                bool space_dense);

// Notes that there were warnings, and passes them on if there is somebody to show them to: an op
// that warns runs now, each time, so that eager itself does it. If there is nobody, what torch
// warns of once is still to come.
class NoteWarnings : public c10::WarningHandler {
 public:
  explicit NoteWarnings(c10::WarningHandler* next = nullptr)
      : next_(next), always_(c10::WarningUtils::get_warnAlways()), guard_(this) {
    if (!next_) c10::WarningUtils::set_warnAlways(true);
  }
  ~NoteWarnings() override {
    if (!next_) c10::WarningUtils::set_warnAlways(always_);
  }
  NoteWarnings(const NoteWarnings&) = delete;
  NoteWarnings& operator=(const NoteWarnings&) = delete;
  void process(const c10::Warning& warning) override {
    any = true;
    if (next_) next_->process(warning);
  }
  bool any = false;

 private:
  c10::WarningHandler* next_;
  bool always_;
  c10::WarningUtils::WarningHandlerGuard guard_;
};

// Replaces each tensor in an argument (lists included).
template <typename F>
c10::IValue map_tensors(const c10::IValue& value, const F& f) {
  if (value.isTensor())
    return value.toTensor().defined() ? c10::IValue(f(value.toTensor())) : value;
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(f(tensor));
    return list;
  }
  return value;
}

Layout layout_of(const at::Tensor& tensor);

// The layout of the result for new sizes; nothing if eager would raise or warn, or if no rule is
// known: then the op is run, and what eager does is what it does.
std::optional<Layout> infer_layout(const OpInfo& info, LayoutRule rule,
                                   const std::vector<c10::ScalarType>& dtypes,
                                   const torch::jit::Stack& stack);

// Whether the real op takes these dtypes, ranks and constants, and the dtypes of its results: tried
// on one element each.
std::optional<std::vector<c10::ScalarType>> try_on_one_element(const OpInfo& info,
                                                               const torch::jit::Stack& stack);

}  // namespace torchy
