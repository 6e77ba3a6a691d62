// The walker: sees every op below autograd, on unpatched torch, and records or runs it.
//
// It must be C++ because only C++ can make a tensor whose storage has no memory yet, because ops
// arrive from threads without Python, and because an op is recorded in the time in which Python
// looks up a name.
//
// How ops get here: see keys.h. What is recorded: trie.h (places) and trace.h (traces). How:
// recorder.h. What Python calls: api.h. Built on first use by native.py, without Python's headers.
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/TensorOptions.h>
#include <torch/library.h>

#include <atomic>
#include <unordered_set>

#include "api.h"
#include "execute.h"
#include "recorder.h"

namespace torchy {

OpInfo::OpInfo(const c10::OperatorHandle& handle) : op(handle) {
  const auto& schema = op.schema();
  arguments = schema.arguments().size();
  results = schema.returns().size();
  fresh_tensors = true;
  for (size_t i = 0; i < arguments && i < 64; ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias && alias->isWrite()) writes |= uint64_t{1} << i;
  }
  for (const auto& result : schema.returns()) {
    int from = -1;
    if (const auto* alias = result.alias_info()) {
      for (size_t i = 0; i < arguments; ++i) {
        const auto* other = schema.arguments()[i].alias_info();
        if (other && other->isWrite() && other->beforeSets() == alias->beforeSets())
          from = static_cast<int>(i);
      }
    }
    result_argument.push_back(from);
    if (result.type()->kind() != c10::TypeKind::TensorType) fresh_tensors = false;
  }
}

namespace {

using torch::jit::Stack;

template <typename F>
void each_tensor(const c10::IValue& value, const F& f) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) f(value.toTensor());
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) each_tensor(item, f);
  } else if (value.isTuple()) {
    for (const c10::IValue& item : value.toTupleRef().elements()) each_tensor(item, f);
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) each_tensor(entry.value(), f);
  }
}

c10::StorageImpl* watched_storage(const at::Tensor& tensor) {
  if (!tensor.has_storage()) return nullptr;
  auto* storage = tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  return storage && storage->has_materializer() ? storage : nullptr;
}

bool carry_mode() {
  return this_session && this_session->mode == SessionMode::kCarry && !Paused::active();
}

// Computes what is pending on a tensor, and takes a stray bit off.
void settle(const at::Tensor& tensor, bool written, const char* name) {
  if (auto* storage = watched_storage(tensor))
    settle_storage(storage, written, written ? Reason::kWrite : Reason::kOperand, name);
  if (!carry_mode()) take_bit(*tensor.unsafeGetTensorImpl());
}

void carry(const Stack& stack, size_t results) {
  for (size_t i = stack.size() - results; i < stack.size(); ++i)
    each_tensor(stack[i], [](const at::Tensor& tensor) {
      auto& impl = *tensor.unsafeGetTensorImpl();
      if (impl.key_set().has(c10::DispatchKey::Dense) && impl.device().is_cpu() &&
          impl.has_storage())
        give_bit(impl);
    });
}

// What the op needs is computed first; then it runs as eager would run it.
void run_now(const OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
  const size_t first = stack->size() - info.arguments;
  bool carrying = carry_mode();
  std::string name;
  for (size_t i = 0; i < info.arguments; ++i) {
    bool written = ((info.writes | info.hidden_writes) >> i & 1) != 0;
    each_tensor((*stack)[first + i], [&](const at::Tensor& tensor) {
      if (auto* storage = watched_storage(tensor)) {
        if (name.empty()) name = c10::toString(info.op.operator_name());
        settle_storage(storage, written, written ? Reason::kWrite : Reason::kOperand, name.c_str());
      }
      if (!carrying && carries_bit(*tensor.unsafeGetTensorImpl()))
        take_bit(*tensor.unsafeGetTensorImpl());
    });
  }
  {
    Paused paused;
    info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
  }
  if (carrying) carry(*stack, info.results);
}

// A view of a pending tensor is pending with it: the op computes metadata only, so it simply runs.
void run_on_metadata(const OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
  std::vector<c10::StorageImpl*> storages;
  for (size_t i = stack->size() - info.arguments; i < stack->size(); ++i)
    each_tensor((*stack)[i], [&](const at::Tensor& tensor) {
      auto* storage =
          carries_bit(*tensor.unsafeGetTensorImpl()) ? watched_storage(tensor) : nullptr;
      if (storage) storages.push_back(storage);
    });
  bool carrying = carry_mode();
  {
    Paused paused;
    info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
  }
  if (carrying) return carry(*stack, info.results);
  if (Paused::active() && storages.empty()) return;
  for (size_t i = stack->size() - info.results; i < stack->size(); ++i)
    each_tensor((*stack)[i], [&](const at::Tensor& tensor) {
      auto& impl = *tensor.unsafeGetTensorImpl();
      if (!carries_bit(impl) && storages.empty()) return;
      if (!impl.has_storage()) return;
      auto* storage = impl.unsafe_storage().unsafeGetStorageImpl();
      std::lock_guard<std::mutex> lock(registry().mutex);
      for (auto& session : registry().sessions) {
        for (Trace* trace : {&session->trace, session->running.get()}) {
          int slot = trace ? trace->find_slot(storage) : -1;
          if (slot < 0 || !trace->slots[slot].pending()) continue;
          give_bit(impl);
          trace->bearers.emplace_back(tensor.getIntrusivePtr());
          ++session->views;
          return;
        }
      }
      take_bit(impl);
    });
}

Node* root_of(Session& session) {
  int64_t origin = session.origin >= 0 ? session.origin : ask(Ask::kOrigin, session.id, 0);
  std::lock_guard<std::mutex> lock(registry().mutex);
  auto& root = registry().roots[origin];
  if (!root) {
    root = std::make_unique<Node>();
    root->id = static_cast<int64_t>(registry().nodes.size());
    registry().nodes.push_back(root.get());
  }
  return root.get();
}

void learn_from(Recorder& recorder, const std::optional<std::vector<Layout>>& layouts) {
  std::lock_guard<std::mutex> lock(registry().mutex);
  recorder.learn(*layouts);
}

// Runs an op for the first time with these layouts, and remembers what its results look like.
void run_and_learn(OpInfo& info, Recorder& recorder, c10::DispatchKeySet keys, Stack* stack) {
  const Stack arguments(stack->end() - static_cast<ptrdiff_t>(info.arguments), stack->end());
  std::vector<Layout> before;  // of arguments that are results too: some ops resize them
  for (int argument : info.result_argument)
    before.push_back(argument < 0 ? Layout() : layout_of(arguments[argument].toTensor()));
  const int64_t epoch = registry().epoch;
  NoteWarnings warnings(c10::WarningUtils::get_warning_handler());
  {
    c10::WarningUtils::WarningHandlerGuard guard(&warnings);
    run_now(info, keys, stack);
  }
  if (epoch != registry().epoch) return;  // its place was forgotten meanwhile
  if (warnings.any) return;               // it shall warn again next time, from its own line
  std::vector<Layout> layouts;
  for (size_t i = 0; i < info.results; ++i) {
    const at::Tensor& tensor = stack->at(stack->size() - info.results + i).toTensor();
    layouts.push_back(layout_of(tensor));
    if (!tensor.defined()) continue;
    if (info.result_argument[i] >= 0) {
      if (!layouts[i].same_as(before[i])) return;
    } else if (tensor.storage_offset() != 0 || tensor.storage().nbytes() != layouts[i].bytes ||
               tensor.storage().use_count() != 1) {
      return;  // not what a fresh storage of just this size would be
    }
  }
  learn_from(recorder, layouts);
}

// Asks the policy about an op at a new place; false if all places were forgotten meanwhile.
bool ask_policy(Session& session, OpInfo& info, Step& step, const Stack& stack) {
  ++session.policy_calls;
  const int64_t epoch = registry().epoch;
  int64_t allowed = ask(Ask::kPlace, session.id, step.id);
  if (epoch != registry().epoch) return false;
  Signature& signature = *step.signature;
  if (signature.verdict != Verdict::kUnknown) return true;
  Paused paused;
  bool defer = allowed > 0;  // 1: by the op's own layout rule, else by the one told
  signature.rule = allowed > 1 ? static_cast<LayoutRule>(allowed - 2) : info.rule;
  if (defer && signature.rule != LayoutRule::kLearn) {
    auto dtypes = try_on_one_element(info, stack);
    if (dtypes) signature.result_dtypes = *dtypes;
    defer = dtypes || !info.pointwise;  // calls may mind their sizes: they are tried as they are
  }
  signature.verdict = defer ? Verdict::kDefer : Verdict::kRunNow;
  return true;
}

// Finds out what the results look like for operands not seen before; true if the op has been run.
bool find_layouts(OpInfo& info, Recorder& recorder, c10::DispatchKeySet keys, Stack* stack) {
  const Signature& signature = *recorder.step()->signature;
  std::optional<std::vector<Layout>> layouts;
  {
    Paused paused;
    layouts = infer_layouts(info, signature, *stack);
  }
  if (!layouts) {  // eager raises, or shows how it is
    run_and_learn(info, recorder, keys, stack);
    return true;
  }
  bool fine = true;
  for (size_t i = 0; fine && i < info.results; ++i) {  // results that are resized run now
    int argument = info.result_argument[i];
    fine =
        argument < 0 || layout_of(stack->at(stack->size() - info.arguments + argument).toTensor())
                            .same_as((*layouts)[i]);
  }
  if (fine) {
    learn_from(recorder, layouts);
  } else {
    run_now(info, keys, stack);
  }
  return !fine;
}

void record(OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
  std::shared_ptr<Session> session = this_session;
  // other threads do not flush denormals with this one: which elements are theirs is up to eager
  if (flushes_denormals()) {
    ++session->run_now;
    return run_now(info, keys, stack);
  }
  const auto state = ProcessState::now();
  std::optional<Precision> precision;  // pointwise ops do not mind
  if (!info.pointwise) precision = float32_precision();
  Node* root = nullptr;
  constexpr int kAttempts = 8;  // other threads may flush in between
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Recorder recorder(*session, info, *stack);
    Outcome outcome;
    std::optional<Reason> full;
    {
      std::lock_guard<std::mutex> lock(registry().mutex);
      Trace& trace = session->trace;
      if (trace.path.empty()) trace.state = state;
      if (!(trace.state == state) ||
          (precision && trace.precision && *trace.precision != *precision)) {
        outcome = Outcome::kOtherState;
      } else if (trace.path.empty() && !root) {
        outcome = Outcome::kNeedsRoot;
      } else {
        outcome = recorder.attempt(root);
        if (outcome == Outcome::kRecorded) {
          if (precision) trace.precision = precision;
          full = session->full();
        }
      }
    }
    switch (outcome) {
      case Outcome::kRecorded:
        torch::jit::drop(*stack, info.arguments);
        for (auto& result : recorder.results()) stack->push_back(std::move(result));
        if (full) flush(*session, *full, "");
        return;
      case Outcome::kRunNow:
        ++session->run_now;
        return run_now(info, keys, stack);
      case Outcome::kOtherState:
        flush(*session, Reason::kState, "");
        break;
      case Outcome::kNeedsRoot:
        root = root_of(*session);
        break;
      case Outcome::kNeedsPlace:
        if (!ask_policy(*session, info, *recorder.step(), *stack)) root = nullptr;
        break;
      case Outcome::kNeedsLayout:
        if (find_layouts(info, recorder, keys, stack)) {
          ++session->run_now;
          return;
        }
        break;
    }
  }
  ++session->run_now;
  run_now(info, keys, stack);
}

void claim_if_due();

struct See : c10::OperatorKernel {
  explicit See(OpInfo* info) : info(info) {}
  OpInfo* info;

  void operator()(const c10::OperatorHandle&, c10::DispatchKeySet keys, Stack* stack) const {
    see(*info, keys, stack);
  }

  static void see(OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
    claim_if_due();
    if (info.op_class == OpClass::kUnknown) classify(info);
    if (info.op_class == OpClass::kMetadata) return run_on_metadata(info, keys, stack);
    Session* session = this_session.get();
    if (!session && !Paused::active() && thread_has_bit()) set_thread_bit(false);  // a left-over
    if (!session || session->mode != SessionMode::kRecord || Paused::active() || !thread_has_bit())
      return run_now(info, keys, stack);
    switch (info.op_class) {
      case OpClass::kDescend:
        return info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
      case OpClass::kDefer:
        return record(info, keys, stack);
      default:
        if ((++session->run_now & 0xfff) == 0) ask(Ask::kPace, session->id, 0);
        return run_now(info, keys, stack);
    }
  }

  static void classify(OpInfo& info) {
    if (!listening()) return;
    auto name = c10::toString(info.op.operator_name());
    ask(Ask::kClassify, 0, info.id, name.c_str());
    if (info.op_class == OpClass::kUnknown) info.op_class = OpClass::kRunNow;
  }
};

OpInfo* info_of(const c10::OperatorHandle& op) {
  static std::mutex guard;
  static std::unordered_map<c10::OperatorName, OpInfo*> known;
  std::lock_guard<std::mutex> lock(guard);
  auto& info = known[op.operator_name()];
  if (!info) {
    auto fresh = std::make_unique<OpInfo>(op);
    info = fresh.get();
    std::lock_guard<std::mutex> all(registry().mutex);
    fresh->id = static_cast<int64_t>(registry().ops.size());
    registry().ops.push_back(std::move(fresh));
  }
  return info;
}

// Serves what has no kernel of its own for the bit: ops registered after the walker was loaded.
void see_unclaimed(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  See::see(*info_of(op), keys, stack);
}

// Autograd: the CPU's own kernel takes over, and what it runs comes here again.
void pass(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

void settle_arguments(const c10::OperatorHandle& op, const Stack& stack) {
  const auto name = c10::toString(op.operator_name());
  const auto& arguments = op.schema().arguments();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool written = arguments[i].alias_info() && arguments[i].alias_info()->isWrite();
    each_tensor(stack[stack.size() - arguments.size() + i],
                [&](const at::Tensor& tensor) { settle(tensor, written, name.c_str()); });
  }
}

// Sparse, quantized and nested tensors: nothing inside their kernels is the program's own op.
void pass_whole(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  settle_arguments(op, *stack);
  Paused paused;
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

void settle_and_pass(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  settle_arguments(op, *stack);
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

// Ops that are made of others, but read memory through const pointers: of their operands ...
constexpr const char* kImplicitReaders[] = {"aten::tensor_split.tensor_indices_or_sections",
                                            "aten::ctc_loss.Tensor",
                                            "aten::lstm.data",
                                            "aten::gru.data",
                                            "aten::rnn_tanh.data",
                                            "aten::rnn_relu.data",
                                            "aten::_pad_packed_sequence"};
// ... and of what the ops inside them have made.
constexpr const char* kOpaque[] = {
    "aten::_sobol_engine_draw", "aten::_sobol_engine_ff_", "aten::_sobol_engine_initialize_state_",
    "aten::_sobol_engine_scramble_", "aten::choose_qparams_optimized"};

// Factories enter through BackendSelect; the ops inside their kernels are not the program's, so
// they are not recorded.
void run_factory(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  std::optional<c10::ScalarType> dtype;
  std::optional<c10::Layout> layout;
  std::optional<c10::Device> device;
  const auto& arguments = op.schema().arguments();
  const size_t first = stack->size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& value = (*stack)[first + i];
    if (value.isNone()) continue;
    if (arguments[i].name() == "dtype") dtype = value.toScalarType();
    if (arguments[i].name() == "layout") layout = value.toLayout();
    if (arguments[i].name() == "device") device = value.toDevice();
  }
  c10::DispatchKeySet keys(c10::computeDispatchKey(dtype, layout, device));
  settle_arguments(op, *stack);
  bool tensors = false;
  for (size_t i = 0; i < arguments.size(); ++i)
    each_tensor((*stack)[first + i], [&](const at::Tensor& tensor) {
      keys = keys | tensor.key_set();
      tensors = true;
    });
  Paused paused;
  constexpr c10::DispatchKeySet after(c10::DispatchKeySet::FULL_AFTER,
                                      c10::DispatchKey::BackendSelect);
  // as the kernels that torch generates do: the thread's keys count only beside tensors
  op.redispatchBoxed(tensors ? c10::impl::computeDispatchKeySet(keys, after) : keys, stack);
}

class Silent : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

// Tells which ops have been registered since it was last asked: it begins with all of them.
class News : public c10::OpRegistrationListener {
 public:
  void onOperatorRegistered(const c10::OperatorHandle& op) override {
    std::lock_guard<std::mutex> lock(box().mutex);
    box().names.push_back(op.operator_name());
    box().any = true;
  }
  void onOperatorDeregistered(const c10::OperatorHandle&) override {}

  static bool any() { return box().any.load(std::memory_order_relaxed); }

  static std::vector<c10::OperatorName> take() {
    std::lock_guard<std::mutex> lock(box().mutex);
    box().any = false;
    return std::exchange(box().names, {});
  }

 private:
  struct Box {
    std::mutex mutex;
    std::atomic<bool> any{false};
    std::vector<c10::OperatorName> names;
  };
  static Box& box() {
    static Box* instance = std::make_unique<Box>().release();
    return *instance;
  }
};

class Claims {
 public:
  Claims()
      : listening_(c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<News>())) {
    absorb();
    waiting_.clear();  // what had no kernel when the walker was loaded will get none
  }

  // Claims what is new. An op whose kernels are not there yet is looked at again, for a while.
  void absorb() {
    std::lock_guard<std::mutex> lock(mutex_);
    Silent silent;
    c10::WarningUtils::WarningHandlerGuard guard(&silent);
    for (const auto& name : News::take()) {
      waiting_.emplace_back(name, kPatience);
      if (auto op = c10::Dispatcher::singleton().findSchema(name)) refresh(*op);
    }
    auto settled = [this](std::pair<c10::OperatorName, int>& entry) {
      auto op = c10::Dispatcher::singleton().findSchema(entry.first);
      return !op || claim(*op) || --entry.second == 0;
    };
    waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), settled), waiting_.end());
    any_waiting_ = !waiting_.empty();
  }

  bool due() const { return News::any() || any_waiting_.load(std::memory_order_relaxed); }

 private:
  static constexpr int kPatience = 64;  // ops seen after an op's registration

  // A fallback only serves ops that have no kernel of their own for the backend. Those with a
  // composite kernel would run that, decomposed, with other results than on the CPU. So each op
  // that the CPU serves is claimed.
  bool claim(const c10::OperatorHandle& op) {
    using c10::DispatchKey;
    const auto& name = op.operator_name();
    if (!name.getNamespace() || *name.getNamespace() == "torchy") return true;
    const bool composite =
        op.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutograd) ||
        op.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutogradNonFunctional);
    const bool served = composite || op.hasKernelForDispatchKey(DispatchKey::CPU);
    if (served && is_new(name, DispatchKey::PrivateUse3))
      put(op, DispatchKey::PrivateUse3,
          torch::CppFunction::makeFromBoxedFunctor(std::make_unique<See>(info_of(op))));
    const bool sparse = name.name.find("sparse_") != std::string::npos;
    if (op.hasKernelForDispatchKey(DispatchKey::BackendSelect) &&
        (sparse || (composite && !has_tensors(op))) && is_new(name, DispatchKey::BackendSelect))
      put(op, DispatchKey::BackendSelect,
          torch::CppFunction::makeFromBoxedFunction<&run_factory>());
    static const std::pair<DispatchKey, DispatchKey> kOthers[] = {
        {DispatchKey::SparseCPU, DispatchKey::SparsePrivateUse3},
        {DispatchKey::SparseCsrCPU, DispatchKey::SparseCsrPrivateUse3},
        {DispatchKey::QuantizedCPU, DispatchKey::QuantizedPrivateUse3},
        {DispatchKey::NestedTensorCPU, DispatchKey::NestedTensorPrivateUse3}};
    for (auto [from, to] : kOthers)
      if (op.hasKernelForDispatchKey(from) && is_new(name, to))
        put(op, to, torch::CppFunction::makeFromBoxedFunction<&pass_whole>());
    if (op.hasKernelForDispatchKey(DispatchKey::AutogradCPU) &&
        is_new(name, DispatchKey::AutogradPrivateUse3))
      put(op, DispatchKey::AutogradPrivateUse3, torch::CppFunction::makeFromBoxedFunction<&pass>());
    const auto full = c10::toString(name);
    for (auto key : {DispatchKey::PrivateUse3, DispatchKey::AutogradPrivateUse3}) {
      const auto is_op = [&](const char* other) { return full == other; };
      if (std::any_of(std::begin(kImplicitReaders), std::end(kImplicitReaders), is_op) &&
          is_new(name, key))
        put(op, key, torch::CppFunction::makeFromBoxedFunction<&settle_and_pass>());
      if (std::any_of(std::begin(kOpaque), std::end(kOpaque), is_op) && is_new(name, key))
        put(op, key, torch::CppFunction::makeFromBoxedFunction<&pass_whole>());
    }
    return served;
  }

  static bool has_tensors(const c10::OperatorHandle& op) {
    for (const auto& argument : op.schema().arguments())
      if (argument.type()->str().find("Tensor") != std::string::npos) return true;
    return false;
  }

  bool is_new(const c10::OperatorName& name, c10::DispatchKey key) {
    return claimed_.insert(c10::toString(name) + "/" + c10::toString(key)).second;
  }

  void put(const c10::OperatorHandle& op, c10::DispatchKey key, torch::CppFunction&& function) {
    const auto& name = op.operator_name();
    auto full = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
    auto space = std::string(*name.getNamespace());
    auto& library = libraries_[space + "/" + c10::toString(key)];
    if (!library)
      library =
          std::make_unique<torch::Library>(torch::Library::IMPL, space, key, __FILE__, __LINE__);
    library->impl(full.c_str(), std::move(function));
  }

  // An op that is defined anew may have another schema.
  static void refresh(const c10::OperatorHandle& op) {
    OpInfo* info = info_of(op);
    OpInfo fresh(op);
    fresh.id = info->id;
    std::lock_guard<std::mutex> lock(registry().mutex);
    *info = fresh;
  }

  std::mutex mutex_;
  std::vector<std::pair<c10::OperatorName, int>> waiting_;
  std::atomic<bool> any_waiting_{false};
  std::unordered_set<std::string> claimed_;
  std::unordered_map<std::string, std::unique_ptr<torch::Library>> libraries_;
  c10::RegistrationHandleRAII listening_;
};

Claims& claims() {
  static Claims* instance = std::make_unique<Claims>().release();
  return *instance;
}

std::atomic<bool>& loaded() {
  static std::atomic<bool> value{false};
  return value;
}

void claim_if_due() {
  if (loaded().load(std::memory_order_acquire) && claims().due()) claims().absorb();
}

}  // namespace

void claim_ops() {
  claims().absorb();
  loaded().store(true, std::memory_order_release);
}

}  // namespace torchy

TORCH_LIBRARY_IMPL(_, PrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::see_unclaimed>());
}
TORCH_LIBRARY_IMPL(_, SparsePrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, SparseCsrPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, NestedTensorPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
TORCH_LIBRARY_IMPL(_, QuantizedPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
// Ops without a gradient formula. The CPU's own fallback goes straight on to the CPU's kernel.
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse3, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&torchy::pass_whole>());
}
