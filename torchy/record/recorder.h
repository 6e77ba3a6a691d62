// Records one op: finds its place, makes its pending results.
#pragma once

#include <ATen/MemoryOverlap.h>

#include <cstring>

#include "trace.h"

namespace torchy {

enum class Outcome { kRecorded, kRunNow, kNeedsPlace, kNeedsLayout };

// One attempt to record one op. Nothing is changed until everything is known; the caller holds the
// mutex during attempt(), asks whoever can help if something is missing, and tries again.
class Recorder {
 public:
  Recorder(Session& session, OpInfo& info, torch::jit::Stack& stack)
      : session_(session),
        trace_(session.trace),
        info_(info),
        stack_(stack),
        first_(stack.size() - info.arguments) {}

  Outcome attempt(Node* root);
  Step* step() const { return step_; }
  Step* add_step(Node* parent);
  bool any_pending() const { return any_pending_; }
  void learn(std::vector<Layout> results);

 private:
  struct Operand {
    c10::TensorImpl* tensor;
    int slot, view;
    bool written;
  };

  bool read_arguments();
  bool read_argument(const c10::IValue& value, size_t index, std::vector<Argument>* into);
  bool read_tensor(const at::Tensor& tensor, size_t index, Argument* argument);
  bool read_number(char kind, int64_t bits, double value, bool runtime, Argument* argument);
  bool fit(const c10::TensorImpl& tensor, int slot) const;
  bool overlaps() const;
  const Memo* find_memo() const;
  Node* variant(const Memo& memo);
  void commit(const Memo& memo, Node* node);

  Session& session_;
  Trace& trace_;
  OpInfo& info_;
  torch::jit::Stack& stack_;
  size_t first_;
  Step* step_ = nullptr;
  bool any_pending_ = false, any_dimension_ = false;
  int new_slots_ = 0, new_views_ = 0;
  c10::SmallVector<Operand, 6> operands_;
  c10::SmallVector<int64_t, 4> numbers_;
  Words key_;            // op, constants, and for each operand its slot and view
  Words signature_key_;  // the same without slots and views
  std::vector<int64_t> layouts_;
  std::vector<Argument> arguments_;
};

inline constexpr auto kFunctionality =  // what a plain dense CPU tensor has, and the bit
    c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutocastCPU,
                         c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::AutogradCPU}) |
    c10::DispatchKeySet(kBit);

inline bool Recorder::fit(const c10::TensorImpl& tensor, int slot) const {
  if (((tensor.key_set() | kFunctionality).raw_repr()) != kFunctionality.raw_repr()) return false;
  if (!tensor.has_storage() || tensor.has_symbolic_sizes_strides()) return false;
  if (slot >= 0 && slot < static_cast<int>(trace_.slots.size())) return true;
  auto* storage = tensor.storage().unsafeGetStorageImpl();
  if (storage->device_type() != c10::kCPU || !storage->resizable()) return false;
  if (storage->allocator() != c10::GetCPUAllocator()) return false;
  auto& escaped = registry().escaped;
  if (!escaped.empty() && escaped.find(storage) != escaped.end()) return false;
  if (storage->has_materializer()) {  // somebody's: another trace's input is fine, what is pending
                                      // there is not
    bool pending = false;
    if (holders(storage, &pending).empty() || pending) return false;
  }
  return true;
}

inline bool Recorder::read_number(char kind, int64_t bits, double value, bool runtime,
                                  Argument* argument) {
  if (kind == 'f') std::memcpy(&bits, &value, sizeof bits);
  uint64_t tag =
      (uint64_t{2} << 60) | (static_cast<uint64_t>(runtime) << 8) | static_cast<uint8_t>(kind);
  key_.push_back(tag);
  signature_key_.push_back(tag);
  argument->number = kind;
  if (runtime) {
    argument->kind = Argument::kNumber;
    argument->index = static_cast<int>(trace_.numbers.size() + numbers_.size());
    numbers_.push_back(bits);
  } else {
    key_.push_back(static_cast<uint64_t>(bits));
    signature_key_.push_back(static_cast<uint64_t>(bits));
    argument->kind = Argument::kConstant;
    argument->constant = kind == 'f'   ? c10::IValue(value)
                         : kind == 'b' ? c10::IValue(bits != 0)
                                       : c10::IValue(bits);
  }
  return true;
}

inline bool Recorder::read_tensor(const at::Tensor& tensor, size_t index, Argument* argument) {
  auto* impl = tensor.unsafeGetTensorImpl();
  auto dtype = tensor.scalar_type();
  if (impl->is_wrapped_number() && !carries_bit(*impl)) {
    bool runtime = (info_.runtime_numbers >> index) & 1;
    argument->wrapped = dtype;
    uint64_t tag = (uint64_t{3} << 60) | static_cast<uint64_t>(dtype);
    key_.push_back(tag);
    signature_key_.push_back(tag);
    const void* data = tensor.const_data_ptr();
    if (dtype == c10::kDouble)
      return read_number('f', 0, *static_cast<const double*>(data), runtime, argument);
    if (dtype == c10::kLong)
      return read_number('i', *static_cast<const int64_t*>(data), 0, runtime, argument);
    if (dtype == c10::kBool)
      return read_number('b', *static_cast<const bool*>(data), 0, runtime, argument);
    return false;
  }
  if (!impl->has_storage()) return false;
  auto* storage = impl->storage().unsafeGetStorageImpl();
  Operand operand{impl, trace_.find_slot(storage), -1,
                  ((info_.writes | info_.hidden_writes) >> index & 1) != 0};
  bool known_slot = operand.slot >= 0;
  for (const Operand& other : operands_) {  // seen earlier in this very op?
    if (other.tensor->storage().unsafeGetStorageImpl() != storage) continue;
    operand.slot = other.slot;
    if (other.tensor == impl ||
        (other.tensor->storage_offset() == impl->storage_offset() &&
         other.tensor->sizes() == impl->sizes() && other.tensor->strides() == impl->strides() &&
         other.tensor->dtype() == impl->dtype()))
      operand.view = other.view;
  }
  if (!fit(*impl, known_slot ? operand.slot : -1)) return false;
  if (operand.slot < 0) operand.slot = static_cast<int>(trace_.slots.size()) + new_slots_++;
  if (operand.view < 0 && known_slot) operand.view = trace_.find_view(operand.slot, *impl);
  if (operand.view < 0) operand.view = static_cast<int>(trace_.views.size()) + new_views_++;
  if (known_slot && trace_.slots[operand.slot].pending()) any_pending_ = true;
  if (operand.written) {
    if (at::has_internal_overlap(impl) != at::MemOverlap::No) return false;
    // every tensor on the storage must carry the bit: it is pending, or this is the only one
    bool pending = known_slot && trace_.slots[operand.slot].pending();
    size_t held = known_slot ? 1 : 0;
    if (!pending && impl->storage().use_count() != held + 1) return false;
    if (!pending && storage->has_materializer() && !known_slot)
      return false;  // another session reads it
  }
  if (tensor.dim() > 0) any_dimension_ = true;
  uint64_t shape = (uint64_t{1} << 60) | (static_cast<uint64_t>(dtype) << 8) |
                   (static_cast<uint64_t>(tensor.dim()) << 16) |
                   (static_cast<uint64_t>(!info_.pointwise && tensor.requires_grad()) << 24);
  signature_key_.push_back(shape);
  key_.push_back(shape);
  key_.push_back(static_cast<uint64_t>(operand.slot) << 32 | static_cast<uint64_t>(operand.view));
  layouts_.insert(layouts_.end(), impl->sizes().begin(), impl->sizes().end());
  layouts_.insert(layouts_.end(), impl->strides().begin(), impl->strides().end());
  argument->kind = Argument::kView;
  argument->index = static_cast<int>(operands_.size());
  argument->requires_grad = tensor.requires_grad();
  operands_.push_back(operand);
  return true;
}

inline bool Recorder::read_argument(const c10::IValue& value, size_t index,
                                    std::vector<Argument>* into) {
  into->emplace_back();
  Argument* argument = &into->back();
  bool runtime = (info_.runtime_numbers >> index) & 1;
  auto constant = [&](uint64_t tag, std::initializer_list<uint64_t> words) {
    argument->kind = Argument::kConstant;
    argument->constant = value;
    tag |= uint64_t{4} << 60;
    key_.push_back(tag);
    signature_key_.push_back(tag);
    key_.insert(key_.end(), words);
    signature_key_.insert(signature_key_.end(), words);
    return true;
  };
  if (value.isTensor()) {
    if (!value.toTensor().defined()) return constant(1, {});
    return read_tensor(value.toTensor(), index, argument);
  }
  if (value.isNone()) return constant(2, {});
  if (value.isDouble()) return read_number('f', 0, value.toDouble(), runtime, argument);
  if (value.isInt()) return read_number('i', value.toInt(), 0, runtime, argument);
  if (value.isBool()) return read_number('b', value.toBool(), 0, runtime, argument);
  if (value.isIntList()) {
    auto list = value.toIntVector();
    constant(3, {list.size()});
    key_.insert(key_.end(), list.begin(), list.end());
    signature_key_.insert(signature_key_.end(), list.begin(), list.end());
    return true;
  }
  if (value.isBoolList()) {
    constant(4, {value.toBoolList().size()});
    for (bool item : value.toBoolList()) {
      key_.push_back(item);
      signature_key_.push_back(item);
    }
    return true;
  }
  if (value.isString()) {
    const std::string& text = value.toStringRef();
    constant(5, {text.size()});
    for (size_t i = 0; i < text.size(); i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + i, std::min<size_t>(8, text.size() - i));
      key_.push_back(word);
      signature_key_.push_back(word);
    }
    return true;
  }
  if (value.isTensorList()) {
    argument->kind = Argument::kList;
    auto tensors = value.toTensorVector();
    uint64_t tag = (uint64_t{5} << 60) | tensors.size();
    key_.push_back(tag);
    signature_key_.push_back(tag);
    std::vector<Argument> items;
    for (const at::Tensor& tensor : tensors) {
      items.emplace_back();
      if (!tensor.defined() || !read_tensor(tensor, index, &items.back())) return false;
      if (items.back().kind != Argument::kView) return false;
    }
    into->back().items = std::move(items);
    return true;
  }
  return false;  // generators, devices, complex and symbolic numbers, ...: not deferred
}

inline bool Recorder::read_arguments() {
  key_.assign(1, static_cast<uint64_t>(info_.id));
  if (!info_.pointwise && c10::GradMode::is_enabled()) key_[0] |= uint64_t{1} << 32;
  signature_key_ = key_;
  arguments_.reserve(info_.arguments);
  for (size_t i = 0; i < info_.arguments; ++i)
    if (!read_argument(stack_[first_ + i], i, &arguments_)) return false;
  // on one element there is nothing to gain: run it, so that what looks at it next finds it there
  return !operands_.empty() && (any_pending_ || any_dimension_);
}

// Eager raises when a written view overlaps another operand in part; let it.
inline bool Recorder::overlaps() const {
  for (size_t i = 0; i < operands_.size(); ++i) {
    if (!operands_[i].written) continue;
    for (size_t j = 0; j < operands_.size(); ++j)
      if (i != j && operands_[i].slot == operands_[j].slot &&
          operands_[i].view != operands_[j].view)
        return true;
  }
  return false;
}

inline const Memo* Recorder::find_memo() const {
  for (const auto& memo : step_->signature->memos)
    if (memo->operands == layouts_) return memo.get();
  return nullptr;
}

inline void Recorder::learn(std::vector<Layout> results) {
  auto memo = std::make_unique<Memo>();
  memo->operands = layouts_;
  memo->results = std::move(results);
  if (info_.pointwise) {
    const Layout& space = memo->results[0];
    bool space_dense = dense(space.sizes, space.strides);
    for (const Operand& operand : operands_)
      memo->pattern.push_back(
          mode_of(operand.tensor->sizes(), operand.tensor->strides(), space, space_dense));
    memo->pattern.push_back(mode_of(space.sizes, space.strides, space, space_dense));
  }
  for (const Layout& result : memo->results) {
    memo->pattern.push_back(static_cast<uint8_t>(result.dtype));
    memo->pattern.push_back(static_cast<uint8_t>(result.sizes.size()));
  }
  auto& signature = *step_->signature;
  if (signature.result_dtypes.empty())
    for (const Layout& result : memo->results) signature.result_dtypes.push_back(result.dtype);
  constexpr size_t kMemos = 4;
  if (signature.memos.size() < kMemos) {
    signature.memos.push_back(std::move(memo));
  } else {
    signature.memos[signature.next_memo++ % kMemos] = std::move(memo);
  }
  ++session_.layouts;
}

inline Step* Recorder::add_step(Node* parent) {
  auto& all = registry();
  auto step = std::make_unique<Step>();
  step->key = key_;
  step->id = static_cast<int64_t>(all.steps.size());
  step->info = &info_;
  step->before = parent;
  step->grad_mode = (key_[0] >> 32) != 0;
  auto& signature = all.signatures[signature_key_];
  if (!signature) signature = std::make_unique<Signature>();
  step->signature = signature.get();
  step->arguments = std::move(arguments_);
  for (const Operand& operand : operands_) {
    step->operand_views.push_back(operand.view);
    step->operand_slots.push_back(operand.slot);
    step->operand_dtypes.push_back(c10::typeMetaToScalarType(operand.tensor->dtype()));
    step->operand_ranks.push_back(static_cast<int>(operand.tensor->dim()));
  }
  step_ = step.get();
  all.steps.push_back(step_);
  parent->children.push_back(std::move(step));
  ++session_.places;
  return step_;
}

inline Node* Recorder::variant(const Memo& memo) {
  for (auto& node : step_->variants)
    if (node->pattern == memo.pattern) return node.get();
  auto& all = registry();
  auto node = std::make_unique<Node>();
  node->id = static_cast<int64_t>(all.nodes.size());
  node->step = step_;
  node->pattern = memo.pattern;
  int slot = static_cast<int>(trace_.slots.size()) + new_slots_;
  int view = static_cast<int>(trace_.views.size()) + new_views_;
  for (size_t i = 0; i < info_.results; ++i) {
    int argument = info_.result_argument[i];
    if (argument >=
        0) {  // the first operand of that argument: in-place and out= forms take single tensors
      int operand = step_->arguments[argument].index;
      node->result_slots.push_back(step_->operand_slots[operand]);
      node->result_views.push_back(step_->operand_views[operand]);
    } else if (memo.results[i].dtype == c10::ScalarType::Undefined) {
      node->result_slots.push_back(-1);
      node->result_views.push_back(-1);
    } else {
      node->result_slots.push_back(slot++);
      node->result_views.push_back(view++);
    }
  }
  all.nodes.push_back(node.get());
  step_->variants.push_back(std::move(node));
  return step_->variants.back().get();
}

inline void Recorder::commit(const Memo& memo, Node* node) {
  for (const Operand& operand : operands_) {
    const auto& storage = operand.tensor->storage();
    if (operand.slot == static_cast<int>(trace_.slots.size())) {  // new slots come in order
      Slot slot;
      slot.storage = storage.unsafeGetStorageImpl();
      slot.held = storage;
      slot.bytes = storage.nbytes();
      trace_.large_bytes += slot.bytes;
      trace_.slot_of.emplace(slot.storage, operand.slot);
      trace_.slots.push_back(std::move(slot));
      watch(*storage.unsafeGetStorageImpl());
    }
    if (operand.view == static_cast<int>(trace_.views.size()))
      trace_.add_view(operand.slot, operand.tensor->storage_offset(), operand.tensor->sizes(),
                      operand.tensor->strides(),
                      c10::typeMetaToScalarType(operand.tensor->dtype()));
  }
  for (const Operand& operand : operands_) {
    Slot& slot = trace_.slots[operand.slot];
    if (operand.written && !slot.pending()) defer_write(trace_, slot, *operand.tensor);
  }
  trace_.numbers.insert(trace_.numbers.end(), numbers_.begin(), numbers_.end());
  if (trace_.path.empty()) trace_.state = ProcessState::now();
  trace_.path.push_back(node);
  torch::jit::Stack results;
  results.reserve(info_.results);
  for (size_t i = 0; i < info_.results; ++i) {
    int argument = info_.result_argument[i];
    if (argument >= 0) {
      results.push_back(stack_[first_ + argument]);
    } else if (memo.results[i].dtype == c10::ScalarType::Undefined) {
      results.emplace_back(at::Tensor());
    } else {
      int slot = 0, view = 0;
      results.emplace_back(pending_tensor(trace_, memo.results[i], &slot, &view));
      trace_.large_bytes += memo.results[i].bytes;
    }
  }
  stack_.insert(stack_.end(), std::make_move_iterator(results.begin()),
                std::make_move_iterator(results.end()));
  ++session_.recorded;
}

// On kRecorded the results lie on the stack above the arguments, which the caller drops without the
// mutex.
inline Outcome Recorder::attempt(Node* root) {
  if (session_.running || !read_arguments()) return Outcome::kRunNow;
  if (overlaps()) return Outcome::kRunNow;
  Node* at = trace_.path.empty() ? root : trace_.path.back();
  step_ = at->find(key_);
  if (!step_) {
    add_step(at);
    return Outcome::kNeedsPlace;
  }
  if (step_->signature->verdict == Verdict::kUnknown) return Outcome::kNeedsPlace;
  if (step_->signature->verdict == Verdict::kRunNow) return Outcome::kRunNow;
  const Memo* memo = find_memo();
  if (!memo) return Outcome::kNeedsLayout;
  commit(*memo, variant(*memo));
  return Outcome::kRecorded;
}

}  // namespace torchy
