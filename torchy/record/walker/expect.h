// The way by which nearly all ops go: an op that comes where one was recorded before, on operands
// as then, is compared with that one, field by field, and added to the trace. Nothing is looked up,
// boxed or allocated but the result. What differs in anything goes the long way, see recorder.h.
#pragma once

#include <c10/core/InferenceMode.h>

#include <cfloat>
#include <cmath>
#include <cstring>

#include "recorder.h"

namespace torchy {

// Whether a tensor is contiguous, without dimensions of a single element or none: strides there
// tell nothing.
inline bool is_plain(at::IntArrayRef sizes, at::IntArrayRef strides) {
  int64_t dense = 1;
  for (size_t i = sizes.size(); i-- > 0; dense *= sizes[i])
    if (sizes[i] < 2 || strides[i] != dense) return false;
  return true;
}

// Compares an op's arguments, in order, with an expectation. Its words are those of the step's key,
// as Recorder::read_argument writes them.
class Matcher {
 public:
  Matcher(const Expectation& expected, const Trace& trace, const OpInfo& info)
      : expected_(expected), trace_(trace), info_(info), key_(expected.node->step->key) {}

  template <typename... A>
  bool matches(const A&... arguments) TORCHY_REQUIRES(shared_mutex) {
    return word(key_header(info_, trace_.state)) && (argument(arguments) && ...) &&
           at_ == key_.size();
  }

  // The storages of operands that the trace does not know yet, in order.
  c10::ArrayRef<c10::StorageImpl*> fresh() const { return fresh_; }
  c10::ArrayRef<int64_t> numbers() const { return numbers_; }
  c10::ArrayRef<c10::TensorImpl*> tensors() const { return tensors_; }
  // The sizes of the op, if they are others than expected; and the strides of what is contiguous.
  bool stretched() const { return !sizes_.empty(); }
  const Dims& sizes() const { return sizes_; }
  const Dims& strides() const { return strides_; }

 private:
  bool word(uint64_t value) { return at_ < key_.size() && key_[at_++] == value; }

  bool argument(const at::Tensor& tensor) TORCHY_REQUIRES(shared_mutex) {
    const bool matches = tensor.defined() ? this->tensor(tensor) : word(kConstantTag | 1);
    ++index_;
    return matches;
  }
  bool argument(const at::Scalar& scalar) {
    bool matches = false;
    if (scalar.type() == c10::kDouble) matches = number('f', bits(scalar.toDouble()));
    if (scalar.type() == c10::kLong) matches = number('i', scalar.toLong());
    if (scalar.type() == c10::kBool) matches = number('b', scalar.toBool());
    ++index_;
    return matches;
  }
  bool argument(int64_t value) {
    const bool matches = number('i', value);
    ++index_;
    return matches;
  }
  bool argument(bool value) {
    const bool matches = number('b', value);
    ++index_;
    return matches;
  }
  bool argument(c10::ScalarType value) { return argument(static_cast<int64_t>(value)); }
  bool argument(std::optional<c10::ScalarType> value) { return value ? argument(*value) : none(); }
  bool argument(at::IntArrayRef list) {
    ++index_;
    if (!word(kConstantTag | 3) || !word(list.size())) return false;
    for (int64_t item : list)
      if (!word(static_cast<uint64_t>(item))) return false;
    return true;
  }
  bool argument(at::OptionalIntArrayRef list) { return list ? argument(*list) : none(); }

  bool none() {
    ++index_;
    return word(kConstantTag | 2);
  }

  static int64_t bits(double value) {
    int64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  }

  bool number(char kind, int64_t bits) {
    bool runtime = info_.may_be_runtime(index_);
    double value = static_cast<double>(bits);
    if (kind == 'f') std::memcpy(&value, &bits, sizeof value);
    if (runtime && value == 1 && info_.minds_one(index_)) runtime = false;
    if (!word(kNumberTag | static_cast<uint64_t>(runtime) << 8 | static_cast<uint8_t>(kind)))
      return false;
    if (!runtime) return word(static_cast<uint64_t>(bits));
    numbers_.push_back(bits);
    if (expected_.floating) return !std::isfinite(value) || std::abs(value) <= FLT_MAX;
    return expected_.harmless && value >= 0 && value <= 127;
  }

  // A few words: a call of memcmp would take longer.
  static bool same(at::IntArrayRef given, const int64_t* known) {
    for (size_t i = 0; i < given.size(); ++i)
      if (given[i] != known[i]) return false;
    return true;
  }

  bool wrapped(const at::Tensor& tensor) {
    if (!word(kWrappedTag)) return false;
    const void* data = tensor.const_data_ptr();
    switch (tensor.scalar_type()) {
      case c10::kDouble:
        return number('f', *static_cast<const int64_t*>(data));
      case c10::kLong:
        return number('i', *static_cast<const int64_t*>(data));
      case c10::kBool:
        return number('b', *static_cast<const bool*>(data));
      default:
        return false;
    }
  }

  bool tensor(const at::Tensor& tensor) TORCHY_REQUIRES(shared_mutex) {
    auto* impl = tensor.unsafeGetTensorImpl();
    if (impl->is_wrapped_number() && !carries_bit(*impl)) return wrapped(tensor);
    if (tensors_.size() == expected_.operands.size()) return false;
    const Expectation::Operand& known = expected_.operands[tensors_.size()];
    tensors_.push_back(impl);
    if (impl->key_set().raw_repr() != known.keys) return false;
    if (impl->has_symbolic_sizes_strides() || !impl->has_storage()) return false;
    if (known.inference && !c10::InferenceMode::is_enabled()) return false;
    const auto sizes = impl->sizes(), strides = impl->strides();
    if (!word(tensor_word(info_, tensor))) return false;
    ++at_;  // slot and view are compared by their storage
    const int64_t* layout = expected_.layouts.data() + known.layout;
    if (stretched() && known.plain) {
      if (!same(sizes, sizes_.data()) || !same(strides, strides_.data())) return false;
    } else if (!same(sizes, layout) || !same(strides, layout + sizes.size())) {
      if (!known.plain || !stretch(sizes, strides)) return false;
    } else {
      as_expected_ = as_expected_ || known.plain;
    }
    if (!known.any_offset && impl->storage_offset() != known.offset) return false;
    return storage(known, *impl);
  }

  // Takes other sizes for those of the op, if it stretches.
  bool stretch(at::IntArrayRef sizes, at::IntArrayRef strides) {
    if (!expected_.stretches || as_expected_ || !is_plain(sizes, strides)) return false;
    sizes_.assign(sizes.begin(), sizes.end());
    strides_.assign(strides.begin(), strides.end());
    return true;
  }

  // Whether a tensor is a view of the trace, which need not lie as it lay the last time.
  bool is_view(const c10::TensorImpl& tensor, const View& view) const {
    const int64_t* at = &trace_.words[view.at];
    return at[0] == tensor.storage_offset() && same(tensor.sizes(), at + 1) &&
           same(tensor.strides(), at + 1 + view.rank);
  }

  bool storage(const Expectation::Operand& known, const c10::TensorImpl& tensor)
      TORCHY_REQUIRES(shared_mutex) {
    auto* storage = tensor.unsafe_storage().unsafeGetStorageImpl();
    if (known.from == Expectation::Operand::kKnown) {
      const Slot& slot = trace_.slots[static_cast<size_t>(known.slot)];
      if (slot.storage != storage || !slot.as_recorded()) return false;
      if (!known.adds_view && !is_view(tensor, trace_.views[static_cast<size_t>(known.view)]))
        return false;
      return !known.written || slot.pending() ||
             (tensor.unsafe_storage().use_count() == 1 &&
              (!Kept::holds(*storage) || slot.kept.use_count() == 2));
    }
    if (known.from == Expectation::Operand::kAgain)
      return !known.written &&
             storage == fresh_[static_cast<size_t>(known.slot) - trace_.slots.size()];
    // of another trace too, perhaps, or of this one at another slot: the long way knows
    if (storage->has_materializer() || !fit_storage(storage)) return false;
    for (auto* other : fresh_)
      if (other == storage) return false;
    fresh_.push_back(storage);
    return !known.written || (tensor.unsafe_storage().use_count() == 1 && !Kept::holds(*storage));
  }

  const Expectation& expected_;
  const Trace& trace_;
  const OpInfo& info_;
  const Words& key_;
  size_t at_ = 0, index_ = 0;
  c10::SmallVector<c10::StorageImpl*, 4> fresh_;
  c10::SmallVector<int64_t, 4> numbers_;
  c10::SmallVector<c10::TensorImpl*, 4> tensors_;
  Dims sizes_, strides_;
  bool as_expected_ = false;  // of a plain operand the sizes were
};

// Adds an op that matches to the trace; its result, if it has one that is no argument. Call with
// the mutex held.
at::Tensor add_known(Session& session, Trace& trace, const Expectation& expected,
                     const Matcher& match) TORCHY_REQUIRES(shared_mutex);

enum class Known { kNo, kYes, kTooLong, kNeedsRoot };

// Records an op if it comes as it came before; `result` is what add_known gives.
template <typename... A>
Known record_known(const OpInfo& info, Session& session, at::Tensor& result,
                   const A&... arguments) {
  const auto state = ProcessState::now();
  std::optional<Precision> precision;
  if (info.minds_precision) precision = float32_precision();
  const Lock lock(shared_mutex);
  if (session.running) return Known::kNo;
  Trace& trace = *session.trace;
  const bool first = trace.path.empty();
  Node* const at = first ? session.root : trace.path.back();
  if (!at) return Known::kNeedsRoot;
  if (!at->expected || session.too_large()) return Known::kNo;
  if (first) trace.state = state;
  if (!(trace.state == state) || (precision && trace.precision && *trace.precision != *precision))
    return Known::kNo;
  auto attempt = [&](const Expectation& expected) TORCHY_REQUIRES(shared_mutex) {
    if (expected.node->step->info != &info) return false;
    Matcher match(expected, trace, info);
    if (!match.matches(arguments...)) return false;
    result = add_known(session, trace, expected, match);
    return true;
  };
  bool found = attempt(*at->expected);
  for (size_t i = 0; !found && i < at->expectations.size(); ++i) {
    Expectation* other = at->expectations[i].get();
    if (other != at->expected && attempt(*other)) {
      at->expected = other;
      found = true;
    }
  }
  if (!found) return Known::kNo;
  if (precision) trace.precision = precision;
  if (trace.large_bytes >= Session::kNoticed) session.weigh();  // as eager would be now
  return session.too_long() ? Known::kTooLong : Known::kYes;
}

}  // namespace torchy
