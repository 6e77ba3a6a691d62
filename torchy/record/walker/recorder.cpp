#include "recorder.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "pool.h"

namespace torchy {

namespace {

// What a plain dense CPU tensor has, and the bit.
inline constexpr auto kPlain =
    c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutocastCPU,
                         c10::DispatchKey::ADInplaceOrView, c10::DispatchKey::AutogradCPU}) |
    c10::DispatchKeySet(kBit);

// What TensorIterator takes; a rank fits into a byte.
inline constexpr int64_t kMostDimensions = 64;

// What stands for an operand among a step's arguments: the same two for all.
const at::Tensor& operand_model(bool requires_grad) {
  static const auto* models = [] {  // they live as long as the process
    auto made = std::make_unique<std::array<at::Tensor, 2>>();
    for (auto& model : *made) model = at::detail::empty_meta({0}, c10::kFloat);
    made->back().set_requires_grad(true);
    return made.release();
  }();
  return (*models)[requires_grad];
}

}  // namespace

Recorder::Recorder(Session& session, OpInfo& info, const torch::jit::Stack& stack)
    : session_(session),
      info_(info),
      stack_(stack),
      first_(stack.size() - info.arguments),
      scratch_(scratch()) {
  scratch_.clear();
}

void Recorder::Scratch::clear() {
  range = Range();
  operands.clear();
  numbers.clear();
  key.clear();
  placed.clear();
  layouts.clear();
}

bool fit_storage(c10::StorageImpl* storage) {
  if (storage->device_type() != c10::kCPU || !storage->resizable()) return false;
  const Pool& pool = Pool::get();
  if (!pool.is_plain(storage->allocator())) return false;
  if (storage->nbytes() > 0 && !Kept::holds(*storage) && !pool.made(storage->data_ptr()))
    return false;
  auto& escaped = registry().escaped;
  if (!escaped.empty() && escaped.find(storage) != escaped.end()) return false;
  if (storage->has_materializer()) {  // another trace's input is fine, what is pending there is not
    bool pending = false;
    if (holders(storage, &pending).empty() || pending) return false;
  }
  return true;
}

bool Recorder::fit(c10::TensorImpl& tensor, const Slot* known) {
  if ((tensor.key_set() | kPlain).raw_repr() != kPlain.raw_repr()) return false;
  if (tensor.has_symbolic_sizes_strides() || tensor.dim() > kMostDimensions) return false;
  // outside inference mode, composite ops on them count versions
  if (tensor.is_inference() && !c10::InferenceMode::is_enabled()) return false;
  const bool fits =
      known ? known->as_recorded() : fit_storage(tensor.unsafe_storage().unsafeGetStorageImpl());
  if (!fits) why_ = WhyNow::kShared;
  return fits;
}

void Recorder::read_number(const c10::IValue& value, size_t index) {
  const int64_t bits = bits_of(value);
  const char kind = value.isDouble() ? 'f' : value.isInt() ? 'i' : 'b';
  scratch_.range.include(kind, bits);
  const bool runtime = info_.runtime(index, value);
  scratch_.key.push_back(kNumberTag | static_cast<uint64_t>(runtime) << 8 |
                         static_cast<uint8_t>(kind));
  if (runtime) {
    scratch_.numbers.push_back(bits);
  } else {
    scratch_.key.push_back(static_cast<uint64_t>(bits));
  }
}

// Eager raises for numbers that a dtype in play cannot hold (not always: let it decide).
bool Recorder::in_range() const {
  const Range& range = scratch_.range;
  if (range.harmless()) return true;
  for (const Given& operand : scratch_.operands)
    if (!range.fits(c10::typeMetaToScalarType(operand.tensor->dtype()))) return false;
  for (c10::ScalarType dtype : step_->signature->result_dtypes)
    if (dtype != c10::ScalarType::Undefined && !range.fits(dtype)) return false;
  return true;
}

uint64_t tensor_word(const OpInfo& info, const at::Tensor& tensor) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  return kTensorTag | static_cast<uint64_t>(c10::typeMetaToScalarType(impl.dtype())) << 8 |
         static_cast<uint64_t>(impl.sizes().size()) << 16 |
         static_cast<uint64_t>(!info.pointwise && tensor.requires_grad()) << 24;
}

bool Recorder::read_tensor(const at::Tensor& tensor, size_t index) {
  if (is_number(tensor)) {
    const c10::IValue item = item_of(tensor);
    if (!is_scalar(item)) return false;
    scratch_.key.push_back(kWrappedTag);
    read_number(item, index);
    return true;
  }
  auto* impl = tensor.unsafeGetTensorImpl();
  if (!impl->has_storage()) return false;
  auto* storage = impl->unsafe_storage().unsafeGetStorageImpl();
  const bool written = info_.written(index);
  Given operand{impl, index, trace_->find_slot(storage), -1, written};
  const bool known = operand.slot >= 0;
  for (const Given& other : scratch_.operands) {  // seen earlier in this very op?
    if (other.tensor->unsafe_storage().unsafeGetStorageImpl() != storage) continue;
    operand.slot = other.slot;
    if (other.tensor == impl ||
        (other.tensor->storage_offset() == impl->storage_offset() &&
         other.tensor->sizes() == impl->sizes() && other.tensor->strides() == impl->strides() &&
         other.tensor->dtype() == impl->dtype()))
      operand.view = other.view;
  }
  if (!fit(*impl, known ? &trace_->slots[operand.slot] : nullptr)) return false;
  if (operand.slot < 0) operand.slot = static_cast<int>(trace_->slots.size()) + new_slots_++;
  if (operand.view < 0 && known) operand.view = trace_->find_view(operand.slot, *impl);
  if (operand.view < 0) operand.view = static_cast<int>(trace_->views.size()) + new_views_++;
  const bool pending = known && trace_->slots[operand.slot].pending();
  any_pending_ = any_pending_ || pending;
  if (written) {
    if (at::has_internal_overlap(impl) != at::MemOverlap::No) return false;
    // every tensor on the storage must carry the bit: it is pending, or this is the only one
    if (!pending && impl->unsafe_storage().use_count() != 1) return false;
    // read by another session, too
    if (!pending && Kept::holds(*storage) &&
        !(known && trace_->slots[operand.slot].kept.use_count() == 2))
      return false;
  }
  auto sizes = impl->sizes(), strides = impl->strides();
  any_dimension_ = any_dimension_ || !sizes.empty();
  scratch_.key.push_back(tensor_word(info_, tensor));
  scratch_.placed.push_back(scratch_.key.size());
  scratch_.key.push_back(static_cast<uint64_t>(operand.slot) << 32 |
                         static_cast<uint64_t>(operand.view));
  scratch_.layouts.insert(scratch_.layouts.end(), sizes.begin(), sizes.end());
  scratch_.layouts.insert(scratch_.layouts.end(), strides.begin(), strides.end());
  scratch_.operands.push_back(operand);
  return true;
}

bool Recorder::read_argument(const c10::IValue& value, size_t index) {
  Words& key = scratch_.key;
  if (value.isTensor()) {
    if (value.toTensor().defined()) return read_tensor(value.toTensor(), index);
    key.push_back(kConstantTag | 1);
  } else if (value.isNone()) {
    key.push_back(kConstantTag | 2);
  } else if (is_scalar(value)) {
    read_number(value, index);
  } else if (value.isIntList()) {
    auto list = value.toIntVector();
    key.push_back(kConstantTag | 3);
    key.push_back(list.size());
    key.insert(key.end(), list.begin(), list.end());
  } else if (value.isBoolList()) {
    auto list = value.toBoolList();
    key.push_back(kConstantTag | 4);
    key.push_back(list.size());
    for (bool item : list) key.push_back(item);
  } else if (value.isString()) {
    const std::string& text = value.toStringRef();
    key.push_back(kConstantTag | 5);
    key.push_back(text.size());
    for (size_t i = 0; i < text.size(); i += 8) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + i, std::min<size_t>(8, text.size() - i));
      key.push_back(word);
    }
  } else if (value.isTensorList()) {
    auto tensors = value.toTensorVector();
    key.push_back(kListTag | tensors.size());
    for (const at::Tensor& tensor : tensors)
      if (!tensor.defined() || is_number(tensor) || !read_tensor(tensor, index)) return false;
  } else {
    why_ = WhyNow::kSignature;
    return false;  // generators, devices, complex and symbolic numbers, ...: not deferred
  }
  return true;
}

uint64_t key_header(const OpInfo& info, const ProcessState& state) {
  const bool grad = !info.pointwise && c10::GradMode::is_enabled();
  // which library runs a call decides how its results lie in memory
  const uint64_t setting = info.pointwise ? 0
                                          : static_cast<uint64_t>(state.mkldnn) |
                                                static_cast<uint64_t>(state.deterministic) << 1 |
                                                static_cast<uint64_t>(state.nnpack) << 2;
  return static_cast<uint64_t>(info.id) | static_cast<uint64_t>(grad) << 32 |
         static_cast<uint64_t>(state.default_dtype) << 40 | setting << 48;
}

bool Recorder::read_arguments() {
  scratch_.key.push_back(key_header(info_, trace_->state));
  for (size_t i = 0; i < info_.arguments; ++i)
    if (!read_argument(stack_[first_ + i], i)) return false;
  if (scratch_.operands.empty()) {
    why_ = WhyNow::kSignature;
    return false;
  }
  // on one element there is nothing to gain: run it, so that what looks at it next finds it there
  if (!any_pending_ && !any_dimension_) why_ = WhyNow::kSingle;
  return any_pending_ || any_dimension_;
}

// Eager raises when a written view overlaps another operand in part, and some ops that are not
// pointwise do when both are the same; let it.
bool Recorder::overlaps() const {
  for (const Given& one : scratch_.operands) {
    if (!one.written) continue;
    for (const Given& other : scratch_.operands) {
      const bool same = info_.pointwise && one.view == other.view;
      if (&one != &other && one.slot == other.slot && !same) return true;
    }
  }
  return false;
}

const Memo* Recorder::find_memo() const {
  const auto& memos = step_->signature->memos;
  const auto found = memos.find(scratch_.layouts);
  return found == memos.end() ? nullptr : &found->second;
}

void Recorder::learn(std::vector<Layout> results) {
  Memo memo;
  memo.results = std::move(results);
  if (info_.pointwise) {
    const Layout& space = memo.results[0];
    bool space_dense = dense(space.sizes, space.strides);
    for (const Given& operand : scratch_.operands)
      memo.pattern.push_back(
          mode_of(operand.tensor->sizes(), operand.tensor->strides(), space, space_dense));
    memo.pattern.push_back(mode_of(space.sizes, space.strides, space, space_dense));
  }
  for (const Layout& result : memo.results) {
    memo.pattern.push_back(static_cast<uint8_t>(result.dtype));
    memo.pattern.push_back(static_cast<uint8_t>(result.sizes.size()));
  }
  auto& signature = *step_->signature;
  if (signature.result_dtypes.empty())
    for (const Layout& result : memo.results) signature.result_dtypes.push_back(result.dtype);
  if (signature.memos.size() >= Signature::kMostMemos) signature.memos.clear();
  signature.memos.insert_or_assign(scratch_.layouts, std::move(memo));
  ++session_.counters.layouts;
}

Words Recorder::signature_key() const {
  Words words = scratch_.key;
  for (size_t at : scratch_.placed) words[at] = 0;
  return words;
}

Step* Recorder::add_step(Node* parent, int64_t line) {
  auto& all = registry();
  auto step = std::make_unique<Step>();
  step->key = scratch_.key;
  step->id = static_cast<int64_t>(all.steps.size());
  step->info = &info_;
  step->line = line;
  step->grad_mode = (scratch_.key[0] >> 32 & 1) != 0;
  auto& signature = all.signatures[signature_key()];
  if (!signature) signature = std::make_unique<Signature>();
  step->signature = signature.get();
  step->numbers = trace_->numbers.size();
  for (size_t i = 0; i < info_.arguments; ++i)
    step->arguments.push_back(map_tensors(stack_[first_ + i], [this](const at::Tensor& tensor) {
      if (is_number(tensor)) return wrapped_number(item_of(tensor));
      return operand_model(!info_.pointwise && tensor.requires_grad());
    }));
  for (const Given& operand : scratch_.operands)
    step->operands.push_back({operand.view, operand.slot, static_cast<int>(operand.tensor->dim()),
                              c10::typeMetaToScalarType(operand.tensor->dtype()), operand.written});
  all.steps.push_back(step.get());
  parent->children.push_back(std::move(step));
  ++session_.counters.places;
  return all.steps.back();
}

Node* Recorder::variant(const Memo& memo) {
  for (auto& node : step_->variants)
    if (node->pattern == memo.pattern) return node.get();
  auto& all = registry();
  auto node = std::make_unique<Node>();
  node->id = static_cast<int64_t>(all.nodes.size());
  node->step = step_;
  node->pattern = memo.pattern;
  int slot = static_cast<int>(trace_->slots.size()) + new_slots_;
  int view = static_cast<int>(trace_->views.size()) + new_views_;
  for (size_t i = 0; i < info_.results; ++i) {
    int argument = info_.result_argument[i];
    if (argument >= 0) {  // in-place and out= forms take single tensors
      const auto& given = scratch_.operands;
      auto same = [&](const Given& one) { return static_cast<int>(one.argument) == argument; };
      const auto& operand = *std::find_if(given.begin(), given.end(), same);
      node->result_slots.push_back(operand.slot);
      node->result_views.push_back(operand.view);
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

void add_input(Trace& trace, c10::StorageImpl& storage) {
  Slot& slot = trace.slots.emplace_back();
  slot.storage = &storage;
  slot.weak.emplace(weakly(storage));
  slot.kept = Kept::of(storage);
  slot.given = static_cast<const char*>(slot.address());
  slot.bytes = storage.nbytes();
  trace.large_bytes += slot.bytes;
  trace.input_bytes += slot.bytes;
  watch(storage);
}

void Recorder::commit(const Memo& memo, Node* node) {
  Node* const before = at_;
  const size_t slots = trace_->slots.size(), views = trace_->views.size(),
               words = trace_->words.size();
  std::vector<uint64_t> keys;
  if (info_.typed)
    for (const Given& operand : scratch_.operands)
      keys.push_back(operand.tensor->key_set().raw_repr());
  for (const Given& operand : scratch_.operands) {
    const auto& storage = operand.tensor->unsafe_storage();
    if (operand.slot == static_cast<int>(trace_->slots.size()))  // new slots come in order
      add_input(*trace_, *storage.unsafeGetStorageImpl());
    if (operand.view == static_cast<int>(trace_->views.size()))
      trace_->add_view(operand.slot, operand.tensor->storage_offset(), operand.tensor->sizes(),
                       operand.tensor->strides(),
                       c10::typeMetaToScalarType(operand.tensor->dtype()));
  }
  for (const Given& operand : scratch_.operands) {
    Slot& slot = trace_->slots[operand.slot];
    if (operand.written && !slot.pending()) defer_write(*trace_, slot, *operand.tensor);
  }
  trace_->numbers.insert(trace_->numbers.end(), scratch_.numbers.begin(), scratch_.numbers.end());
  trace_->path.push_back(node);
  for (size_t i = 0; i < info_.results; ++i) {
    int argument = info_.result_argument[i];
    if (argument >= 0) {
      results_.push_back(stack_[first_ + argument]);
    } else if (memo.results[i].dtype == c10::ScalarType::Undefined) {
      results_.emplace_back(at::Tensor());
    } else {
      const Layout& layout = memo.results[i];
      results_.emplace_back(pending_tensor(*trace_, layout));
      trace_->add_view(static_cast<int>(trace_->slots.size()) - 1, 0, layout.sizes, layout.strides,
                       layout.dtype);
      trace_->large_bytes += memo.results[i].bytes;
    }
  }
  ++session_.counters.recorded;
  if (info_.typed) expect(before, slots, views, words, keys);
}

Outcome Recorder::attempt(Node* root, std::optional<int64_t> line) {
  trace_ = session_.trace.get();
  why_ = session_.running ? WhyNow::kBusy : WhyNow::kOperand;
  if (session_.running || !read_arguments() || overlaps()) return Outcome::kRunNow;
  at_ = trace_->path.empty() ? root : trace_->path.back();
  step_ = at_->find(scratch_.key);
  if (!step_) {
    if (!line) return Outcome::kNeedsLine;
    step_ = add_step(at_, *line);
  }
  if (step_->signature->verdict == Verdict::kUnknown) return Outcome::kNeedsVerdict;
  why_ = WhyNow::kSignature;
  if (step_->signature->verdict == Verdict::kRunNow) return Outcome::kRunNow;
  why_ = WhyNow::kValues;
  if (!in_range()) return Outcome::kRunNow;
  const Memo* memo = find_memo();
  if (!memo) return Outcome::kNeedsLayout;
  commit(*memo, variant(*memo));
  return Outcome::kRecorded;
}

}  // namespace torchy
