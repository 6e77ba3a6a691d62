#include "expect.h"

#include <algorithm>

namespace torchy {

namespace {

// See Expectation. Of a pointwise op with such operands, the result is of their sizes and lies as
// they do, whatever these are; of one with a single operand and a meta kernel (a softmax, a sum of
// all elements), it is if it was once, or it has no dimension if it had none. What is written
// has no other view here: see Recorder::overlaps.
bool stretches(const OpInfo& info, const Signature& signature, const Expectation& made,
               const std::vector<Layout>& results) {
  const Expectation::Operand* plain = nullptr;
  for (const auto& operand : made.operands)
    if (operand.plain) plain = &operand;
  if (!plain) return false;
  const bool pointwise = info.pointwise && signature.rule != LayoutRule::kLearn;
  const bool alone = signature.rule == LayoutRule::kMeta && made.operands.size() == 1;
  if (!pointwise && !alone) return false;
  const auto sizes = made.sizes(*plain);
  for (const auto& operand : made.operands) {
    if (operand.plain ? made.sizes(operand) != sizes : !pointwise || operand.rank != 0)
      return false;
  }
  return std::all_of(results.begin(), results.end(), [&](const Layout& result) {
    if (result.dtype == c10::kByte) return false;  // a generator's state, perhaps: see see.cpp
    const bool same = sizes == result.sizes && is_plain(result.sizes, result.strides);
    return same || (alone && result.sizes.empty());
  });
}

// The same for other sizes; what has no dimension stays as it is.
Layout stretched(const Layout& known, const Matcher& match) {
  Layout layout = known;
  if (layout.sizes.empty()) return layout;
  layout.sizes = match.sizes();
  layout.strides = match.strides();
  layout.elements = c10::multiply_integers(layout.sizes);
  layout.bytes = static_cast<size_t>(layout.elements) * c10::elementSize(layout.dtype);
  return layout;
}

}  // namespace

// Remembers all of an op that has just been recorded, from what the trace had before on.
void Recorder::expect(Node* before, size_t slots, size_t views, size_t words,
                      const std::vector<uint64_t>& keys) {
  auto made = std::make_unique<Expectation>();
  made->node = trace_->path.back();
  made->layouts = scratch_.layouts;
  size_t at = 0;
  std::vector<c10::ScalarType> dtypes = step_->signature->result_dtypes;
  for (size_t i = 0; i < scratch_.operands.size(); ++i) {
    const Given& given = scratch_.operands[i];
    c10::TensorImpl& tensor = *given.tensor;
    Expectation::Operand operand{};
    operand.keys = keys[i];
    dtypes.push_back(c10::typeMetaToScalarType(tensor.dtype()));
    const bool fresh = given.slot >= static_cast<int>(slots);
    const auto same = [&](const Given& other) { return other.slot == given.slot; };
    const auto first = std::find_if(scratch_.operands.begin(), scratch_.operands.end(), same);
    operand.from = !fresh ? Expectation::Operand::kKnown
                   : first == scratch_.operands.begin() + static_cast<ptrdiff_t>(i)
                       ? Expectation::Operand::kNew
                       : Expectation::Operand::kAgain;
    operand.written = given.written;
    operand.inference = tensor.is_inference();
    operand.adds_view = given.view >= static_cast<int>(views);
    operand.any_offset =
        fresh && std::count_if(scratch_.operands.begin(), scratch_.operands.end(), same) == 1;
    operand.slot = given.slot;
    operand.view = given.view;
    operand.offset = tensor.storage_offset();
    operand.layout = at;
    operand.rank = static_cast<size_t>(tensor.dim());
    operand.plain = operand.rank > 0 && is_plain(tensor.sizes(), tensor.strides());
    at += 2 * operand.rank;
    made->operands.push_back(operand);
  }
  made->views.assign(trace_->views.begin() + static_cast<ptrdiff_t>(views), trace_->views.end());
  made->words.assign(trace_->words.begin() + static_cast<ptrdiff_t>(words), trace_->words.end());
  const auto& known = step_->signature->memos.at(scratch_.layouts).results;
  for (size_t i = 0; i < info_.results; ++i) {
    if (info_.result_argument[i] >= 0) continue;
    made->results.push_back(known[i]);
    made->result_bytes += known[i].bytes;
  }
  made->floating = std::all_of(dtypes.begin(), dtypes.end(), [](c10::ScalarType dtype) {
    return dtype == c10::kBool || dtype == c10::kFloat || dtype == c10::kDouble ||
           dtype == c10::kComplexFloat || dtype == c10::kComplexDouble;
  });
  made->harmless = scratch_.range.harmless();
  made->stretches = stretches(info_, *step_->signature, *made, known);
  constexpr size_t kMost = 8;
  auto& expectations = before->expectations;
  before->expected = made.get();
  if (expectations.size() < kMost) {
    expectations.push_back(std::move(made));
  } else {
    expectations[static_cast<size_t>(session_.counters.recorded) % kMost] = std::move(made);
  }
}

at::Tensor add_known(Session& session, Trace& trace, const Expectation& expected,
                     const Matcher& match) {
  for (auto* storage : match.fresh()) add_input(trace, *storage);
  at::Tensor result;
  const size_t first_word = trace.words.size();
  if (!match.stretched()) {
    for (const Layout& layout : expected.results) result = pending_tensor(trace, layout);
    trace.large_bytes += expected.result_bytes;
  } else {
    for (const Layout& known : expected.results) {
      const Layout layout = stretched(known, match);
      result = pending_tensor(trace, layout);
      trace.large_bytes += layout.bytes;
    }
  }
  for (const View& view : expected.views) {
    trace.slots[static_cast<size_t>(view.slot)].last_view = static_cast<int>(trace.views.size());
    trace.views.push_back(view);
  }
  for (int64_t word : expected.words) trace.words.push_back(word);
  if (match.stretched()) {
    int64_t* word = trace.words.data() + first_word;
    for (const View& view : expected.views) {
      ++word;  // the offset
      if (view.rank == 0) continue;
      word = std::copy(match.sizes().begin(), match.sizes().end(), word);
      word = std::copy(match.strides().begin(), match.strides().end(), word);
    }
  }
  for (size_t i = 0; i < expected.operands.size(); ++i) {
    const Expectation::Operand& operand = expected.operands[i];
    c10::TensorImpl& tensor = *match.tensors()[i];
    if (operand.any_offset)
      trace.words[trace.views[static_cast<size_t>(operand.view)].at] = tensor.storage_offset();
    Slot& slot = trace.slots[static_cast<size_t>(operand.slot)];
    if (operand.written && !slot.pending()) defer_write(trace, slot, tensor);
  }
  for (int64_t number : match.numbers()) trace.numbers.push_back(number);
  trace.path.push_back(expected.node);
  ++session.counters.recorded;
  return result;
}

}  // namespace torchy
