#include "expect.h"

#include <algorithm>

namespace torchy {

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
    at += 2 * static_cast<size_t>(tensor.dim());
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
  for (const Layout& layout : expected.results) result = pending_tensor(trace, layout);
  trace.large_bytes += expected.result_bytes;
  for (const View& view : expected.views) {
    trace.slots[static_cast<size_t>(view.slot)].last_view = static_cast<int>(trace.views.size());
    trace.views.push_back(view);
  }
  for (int64_t word : expected.words) trace.words.push_back(word);
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
