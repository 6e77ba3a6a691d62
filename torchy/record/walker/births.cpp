#include "births.h"

#include <ATen/ops/clone.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "numbers.h"
#include "scan.h"
#include "see.h"
#include "session.h"

namespace torchy {

namespace {

int odd_in_view(const Trace& trace, int index) {
  const View& view = trace.views[static_cast<size_t>(index)];
  const auto* memory =
      reinterpret_cast<const char*>(trace.addresses[static_cast<size_t>(view.slot)]);
  if (!memory) return kNone;
  const int64_t* at = &trace.words[view.at];
  return odd_among(memory + at[0] * static_cast<int64_t>(c10::elementSize(view.dtype)), view.dtype,
                   {at + 1, view.rank}, {at + 1 + view.rank, view.rank});
}

bool is_numbers(const at::Tensor& tensor) {
  return tensor.defined() && tensor.layout() == at::kStrided && tensor.device().is_cpu() &&
         tensor.has_storage() && !tensor.is_neg() && !tensor.is_conj();
}

int odd_in_tensor(const at::Tensor& tensor) {
  if (!is_numbers(tensor)) return kNone;
  const auto* memory = static_cast<const char*>(tensor.storage().data_ptr().get());
  if (!memory || tensor.numel() == 0) return kNone;
  const int64_t offset = tensor.storage_offset() * static_cast<int64_t>(tensor.element_size());
  int64_t last = 0;  // element: the op may have made the storage smaller
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  const auto bytes = static_cast<int64_t>(tensor.storage().nbytes());
  if (offset + (last + 1) * static_cast<int64_t>(tensor.element_size()) > bytes) return kNone;
  return odd_among(memory + offset, tensor.scalar_type(), tensor.sizes(), tensor.strides());
}

int odd_number(double value) {
  return std::isnan(value) ? kNaN : std::isinf(value) ? kInfinity : kNone;
}

// Numbers that are no numbers are meant so: `masked_fill(mask, -inf)`.
int odd_among_numbers(const c10::IValue& value) {
  if (value.isDouble()) return odd_number(value.toDouble());
  if (value.isTensor() && value.toTensor().defined() && is_number(value.toTensor())) {
    const c10::IValue item = item_of(value.toTensor());
    return item.isDouble() ? odd_number(item.toDouble()) : kNone;
  }
  return kNone;
}

// What is in the results of these is nobody's yet, or comes from outside.
bool fills_nothing(const OpInfo& info) {
  for (const char* name : {"::empty", "::new_empty", "::resize", "::set_"})
    if (info.name.find(name) != std::string::npos) return true;
  return false;
}

}  // namespace

int born_of(int operands, int results) {
  int born = kNone;
  if ((results & kNaN) && !(operands & kNaN)) born |= kNaN;
  if ((results & kInfinity) && operands == kNone) born |= kInfinity;
  return born;
}

Hunt::Hunt(Trace& trace, int64_t op) {
  if (!trace.hunts || trace.suspect) return;
  node_ = trace.path[static_cast<size_t>(op)];
  for (const Operand& operand : node_->step->operands)
    if (operand.written) before_ |= odd_in_view(trace, operand.view);
}

void Hunt::look(Trace& trace) const {
  if (!node_) return;
  int results = kNone, operands = before_;
  for (int view : node_->result_views)
    if (view >= 0) results |= odd_in_view(trace, view);
  const Step& step = *node_->step;
  for (const Operand& operand : step.operands)
    if (operand.written) results |= odd_in_view(trace, operand.view);
  if (results == kNone) return;
  // element by element others may be passed on: the ops run again, to tell
  if (step.info->pointwise) operands = kNone;
  for (const Operand& operand : step.operands)
    if (!operand.written && !step.info->pointwise) operands |= odd_in_view(trace, operand.view);
  size_t number = step.numbers;
  for (size_t i = 0; i < step.arguments.size(); ++i) {
    const c10::IValue& known = step.arguments[i];
    if (!step.info->runtime(i, known)) {
      operands |= odd_among_numbers(known);
    } else if (is_scalar(known)) {
      operands |= odd_among_numbers(number_of(trace.numbers[number++], known));
    } else if (known.isTensor() && known.toTensor().defined() && is_number(known.toTensor())) {
      operands |= odd_among_numbers(number_of(trace.numbers[number++], item_of(known.toTensor())));
    }
  }
  trace.suspect = born_of(operands, results) != kNone;
}

void add_checks(Trace& trace, const std::vector<int64_t>& like) {
  if (trace.checks > 0) return;
  size_t words = trace.words.size();
  for (const int64_t index : like)
    words += 1 + 2 * size_t{trace.views[static_cast<size_t>(index)].rank};
  // all or nothing
  trace.slots.reserve(trace.slots.size() + like.size());
  trace.views.reserve(trace.views.size() + like.size());
  trace.words.reserve(words);
  trace.addresses.reserve(trace.addresses.size() + like.size());
  trace.flags.reserve(trace.flags.size() + like.size());
  using Dimensions = c10::SmallVector<int64_t, 16>;
  for (const int64_t index : like) {
    const View& view = trace.views[static_cast<size_t>(index)];
    const int64_t* at = &trace.words[view.at] + 1;
    const Dimensions sizes(at, at + view.rank), others(at + view.rank, at + 2 * view.rank);
    Dimensions order(view.rank), strides(view.rank);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return others[static_cast<size_t>(a)] != others[static_cast<size_t>(b)]
                 ? others[static_cast<size_t>(a)] < others[static_cast<size_t>(b)]
                 : a > b;
    });
    int64_t step = 1;
    for (const int64_t d : order) {
      strides[static_cast<size_t>(d)] = step;
      step *= sizes[static_cast<size_t>(d)];
    }
    Slot& slot = trace.slots.emplace_back();
    slot.created = true;
    slot.live = false;
    slot.bytes = static_cast<size_t>(step);
    trace.addresses.push_back(0);
    trace.flags.push_back(kCreated);
    trace.add_view(static_cast<int>(trace.slots.size()) - 1, 0, sizes, strides, c10::kBool);
  }
  trace.checks = like.size();
}

void keep_inputs(Trace& trace) {
  if (trace.before || trace.at != 0) return;
  auto before = std::make_shared<Before>();
  before->read.resize(trace.slots.size());
  before->copies.resize(trace.slots.size());
  for (size_t i = 0; i < trace.slots.size(); ++i) {
    const Slot& slot = trace.slots[i];
    if (slot.created) continue;
    before->read[i] = slot.kept;
    if (slot.kept) continue;
    before->copies[i] = copy_of(slot.address(), slot.bytes);
  }
  trace.before = std::move(before);
}

bool is_suspect(const Trace& trace, int64_t& alarms) {
  constexpr int64_t kAlways = 8;
  bool found = trace.suspect;
  for (size_t i = trace.slots.size() - trace.checks; i < trace.slots.size() && !found; ++i)
    found = trace.addresses[i] &&
            any_set(reinterpret_cast<const char*>(trace.addresses[i]), trace.slots[i].bytes);
  if (!found) return false;
  ++alarms;
  return alarms <= kAlways || (alarms & (alarms - 1)) == 0;
}

HuntNow::HuntNow(const Session* session, const OpInfo& info, const torch::jit::Stack& stack) {
  if (!session || !session->hunts || session->born || session != this_session.get() ||
      fills_nothing(info))
    return;
  session_ = this_session;
  info_ = &info;
  const size_t first = stack.size() - info.arguments;
  for (size_t i = 0; i < info.arguments; ++i) {
    const c10::IValue& argument = stack[first + i];
    before_ |= odd_among_numbers(argument);
    each_tensor(argument, [&](const at::Tensor& tensor) {
      if (!is_numbers(tensor)) return;
      if (!info.written(i)) return operands_.push_back(tensor);
      before_ |= odd_in_tensor(tensor);
    });
  }
}

void HuntNow::look(const torch::jit::Stack& stack) const {
  if (!session_) return;
  int results = kNone, operands = before_;
  for (size_t i = stack.size() - info_->results; i < stack.size(); ++i)
    each_tensor(stack[i], [&](const at::Tensor& tensor) { results |= odd_in_tensor(tensor); });
  if (results == kNone) return;
  for (const at::Tensor& tensor : operands_) operands |= odd_in_tensor(tensor);
  const int kinds = born_of(operands, results);
  if (kinds == kNone) return;
  if (session_->born.exchange(true)) return;  // the first one is what counts
  Birth birth{info_, Lines::kUnknown, registry().epoch, session_->counters.recorded, kinds, {}};
  for (const at::Tensor& tensor : operands_) birth.operands.push_back(at::clone(tensor.detach()));
  birth.line = where_here().first;
  const Lock lock(shared_mutex);
  if (!session_->birth) session_->birth = std::move(birth);
}

}  // namespace torchy
