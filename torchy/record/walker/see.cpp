#include "see.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "indices.h"
#include "interpret.h"
#include "recorder.h"
#include "settle.h"

namespace torchy {

namespace {

bool carry_mode() {
  return this_session && this_session->mode == SessionMode::kCarry && !Paused::active();
}

// Another storage may be on the same memory (from DLPack, or a buffer): flushes what still has to
// read what is about to be written there.
void settle_memory(const c10::StorageImpl& written, Reason reason, const std::string& text) {
  const auto* begin = static_cast<const char*>(written.data_ptr().get());
  const auto* end = begin + written.nbytes();
  auto reads = [&](const Trace* trace) {
    return trace && std::any_of(trace->slots.begin(), trace->slots.end(), [&](const Slot& slot) {
             return slot.given && slot.storage != &written && slot.given < end &&
                    begin < slot.given + slot.bytes;
           });
  };
  std::vector<std::shared_ptr<Session>> sessions;
  {
    const Lock lock(shared_mutex);
    for (auto& session : registry().sessions)
      if (reads(session->trace.get()) || reads(session->running.get())) sessions.push_back(session);
  }
  for (auto& session : sessions)
    flush(*session, session == this_session ? reason : Reason::kOtherThread, text);
}

void carry(const at::Tensor& tensor) {
  auto& impl = *tensor.unsafeGetTensorImpl();
  if (impl.key_set().has(c10::DispatchKey::Dense) && impl.device().is_cpu() && impl.has_storage())
    give_bit(impl);
}

template <typename F>
void each_result(const Stack& stack, size_t results, const F& f) {
  for (size_t i = stack.size() - results; i < stack.size(); ++i) each_tensor(stack[i], f);
}

// What the op needs is computed first; then it runs as eager would run it. Noted in a session that
// would have recorded it.
void run_now(OpInfo& info, c10::DispatchKeySet keys, Stack* stack, const Session* session = nullptr,
             WhyNow why = WhyNow::kPolicy) {
  const bool carrying = carry_mode();
  settle_arguments(info, *stack);
  {
    const NotedNow noted(session, info, why);
    HuntNow hunt(session, info, *stack);
    Paused paused;
    info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
    hunt.look(*stack);
  }
  if (carrying) each_result(*stack, info.results, carry);
}

// Generators read their state from memory, and no op tells: what may be one is not left pending.
bool may_be_random_state(c10::ScalarType dtype, int64_t elements) {
  static const int64_t kElements = at::detail::getDefaultCPUGenerator().get_state().numel();
  return dtype == c10::kByte && elements == kElements;
}

// What makes a tensor is noted: it may fill it. A view takes no time.
void run_on_metadata(OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
  if (info.allocates) make_room();
  OnMetadata op;
  for (size_t i = stack->size() - info.arguments; i < stack->size(); ++i)
    each_tensor((*stack)[i], [&](const at::Tensor& tensor) { op.reads(tensor); });
  {
    const NotedNow noted(info.allocates ? recording_here() : nullptr, info, WhyNow::kPolicy);
    Paused paused;
    info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
  }
  each_result(*stack, info.results, [&](const at::Tensor& tensor) { op.gave(tensor); });
}

// Unless its place was forgotten meanwhile.
void learn_from(Recorder& recorder, int64_t epoch, std::vector<Layout> layouts) {
  for (const auto& layout : layouts)
    if (may_be_random_state(layout.dtype, c10::multiply_integers(layout.sizes))) return;
  const Lock lock(shared_mutex);
  if (epoch == registry().epoch) recorder.learn(std::move(layouts));
}

// Runs an op for the first time with these layouts, and remembers what its results look like.
void run_and_learn(const Session& session, OpInfo& info, Recorder& recorder,
                   c10::DispatchKeySet keys, Stack* stack) {
  const Stack arguments(stack->end() - static_cast<ptrdiff_t>(info.arguments), stack->end());
  std::vector<Layout> before;  // of arguments that are results too: some ops resize them
  for (int argument : info.result_argument)
    before.push_back(argument < 0 ? Layout() : layout_of(arguments[argument].toTensor()));
  const int64_t epoch = registry().epoch;
  make_room();
  {
    NoteWarnings warnings(c10::WarningUtils::get_warning_handler());
    run_now(info, keys, stack, &session, WhyNow::kSizes);
    if (warnings.any) return;  // it shall warn again next time, from its own line
  }
  std::vector<Layout> layouts;
  for (size_t i = 0; i < info.results; ++i) {
    const at::Tensor& tensor = stack->at(stack->size() - info.results + i).toTensor();
    layouts.push_back(layout_of(tensor));
    if (!tensor.defined()) continue;
    if (info.result_argument[i] >= 0) {
      if (!layouts[i].same_as(before[i])) return;
      continue;
    }
    const at::Storage& storage = tensor.storage();
    const size_t bytes = layouts[i].bytes;
    // a call may leave more room than its result needs: that of a loss's terms, before their mean
    const bool fits = info.pointwise ? storage.nbytes() == bytes : storage.nbytes() >= bytes;
    if (tensor.storage_offset() != 0 || !fits || storage.use_count() != 1) return;
    layouts[i].bytes = storage.nbytes();
  }
  learn_from(recorder, epoch, std::move(layouts));
}

// Finds out about a new signature, with the policy's help; false if all places were forgotten
// meanwhile.
bool ask_policy(Session& session, OpInfo& info, Step& step, const Stack& stack) {
  ++session.counters.policy_calls;
  const int64_t epoch = registry().epoch;
  const int64_t allowed = info.asks ? ask(Ask::kPlace, session.id, step.id) : 1;
  bool defer = allowed > 0;  // 1: by the op's own layout rule, else by the one told
  auto rule = allowed > 1 ? static_cast<LayoutRule>(allowed - 2) : info.rule;
  std::optional<std::vector<c10::ScalarType>> dtypes;
  if (defer && rule != LayoutRule::kLearn) {
    Paused paused;
    dtypes = try_on_one_element(info, stack);
    defer = dtypes || !info.pointwise;
    if (!dtypes) rule = LayoutRule::kLearn;  // calls may mind their sizes: tried as they are
  }
  const Lock lock(shared_mutex);
  if (epoch != registry().epoch) return false;
  Signature& signature = *step.signature;
  if (signature.verdict != Verdict::kUnknown) return true;
  signature.rule = rule;
  if (dtypes) signature.result_dtypes = *dtypes;
  signature.verdict = defer ? Verdict::kDefer : Verdict::kRunNow;
  return true;
}

// Finds out what the results look like for operands not seen before; true if the op has been run.
bool find_layouts(const Session& session, OpInfo& info, Recorder& recorder,
                  c10::DispatchKeySet keys, Stack* stack) {
  const int64_t epoch = registry().epoch;
  LayoutRule rule;
  std::vector<c10::ScalarType> dtypes;
  {
    const Lock lock(shared_mutex);
    rule = recorder.step()->signature->rule;
    dtypes = recorder.step()->signature->result_dtypes;
  }
  std::optional<Layout> layout;
  {
    Paused paused;
    layout = infer_layout(info, rule, dtypes, *stack);
  }
  if (!layout) {  // eager raises, or shows how it is
    run_and_learn(session, info, recorder, keys, stack);
    return true;
  }
  const int argument = info.result_argument[0];
  const bool resized =
      argument >= 0 &&
      !layout_of(stack->at(stack->size() - info.arguments + argument).toTensor()).same_as(*layout);
  if (resized || may_be_random_state(layout->dtype, c10::multiply_integers(layout->sizes))) {
    run_now(info, keys, stack, &session, WhyNow::kSizes);
    return true;
  }
  learn_from(recorder, epoch, {*layout});
  return false;
}

void record(OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
  std::shared_ptr<Session> session = this_session;
  // other threads do not flush denormals with this one: which elements are theirs is up to eager
  if (flushes_denormals()) {
    ++session->counters.run_now;
    return run_now(info, keys, stack, session.get(), WhyNow::kState);
  }
  const auto state = ProcessState::now();
  std::optional<Precision> precision;
  if (info.minds_precision) precision = float32_precision();
  Node* root = nullptr;
  int64_t epoch = registry().epoch;  // of the root
  std::optional<int64_t> line;
  constexpr int kAttempts = 8;  // other threads may flush in between
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Recorder recorder(*session, info, *stack);
    Outcome outcome;
    WhyNow why = WhyNow::kValues;
    bool too_long = false;
    {
      const Lock lock(shared_mutex);
      if (epoch != registry().epoch) root = nullptr;  // what ran meanwhile has forgotten it
      Trace& trace = *session->trace;
      if (trace.path.empty()) trace.state = state;
      if (session->too_large()) {
        outcome = Outcome::kFull;
      } else if (!(trace.state == state) ||
                 (precision && trace.precision && *trace.precision != *precision)) {
        outcome = Outcome::kOtherState;
      } else if (info.indices.argument >= 0 && !indices_fit(info, *stack)) {
        outcome = Outcome::kRunNow;
      } else if (trace.path.empty() && !root) {
        outcome = Outcome::kNeedsRoot;
      } else {
        outcome = recorder.attempt(root, line);
        why = recorder.why_now();
        if (outcome == Outcome::kRecorded) {
          if (precision) trace.precision = precision;
          too_long = session->too_long();
          if (trace.large_bytes >= Session::kNoticed) session->weigh();  // as eager would be now
        }
      }
    }
    switch (outcome) {
      case Outcome::kRecorded:
        torch::jit::drop(*stack, info.arguments);
        for (auto& result : recorder.results()) stack->push_back(std::move(result));
        if (too_long) flush(*session, Reason::kLength, "");
        return;
      case Outcome::kFull:
        flush(*session, Reason::kBytes, "");
        break;
      case Outcome::kRunNow:
        ++session->counters.run_now;
        make_room();
        return run_now(info, keys, stack, session.get(), why);
      case Outcome::kOtherState:
        flush(*session, Reason::kState, "");
        break;
      case Outcome::kNeedsRoot:
        epoch = registry().epoch;
        root = root_of(*session);
        break;
      case Outcome::kNeedsLine:
        line = where_here().first;
        break;
      case Outcome::kNeedsVerdict:
        if (!ask_policy(*session, info, *recorder.step(), *stack)) root = nullptr;
        break;
      case Outcome::kNeedsLayout:
        if (find_layouts(*session, info, recorder, keys, stack)) {
          ++session->counters.run_now;
          return;
        }
        break;
    }
  }
  ++session->counters.run_now;
  run_now(info, keys, stack, session.get(), WhyNow::kBusy);
}

void classify(OpInfo& info) {
  if (!listening()) return;
  ask(Ask::kClassify, 0, info.id, info.name);
  const Lock lock(shared_mutex);
  if (info.op_class == OpClass::kUnknown) info.op_class = OpClass::kRunNow;
}

// Computes what is pending on an argument, and takes a stray bit off.
void settle_argument(const OpInfo& info, const at::Tensor& tensor, bool written, bool carrying) {
  if (auto* storage = watched_storage(tensor))
    settle_storage(storage, written, written ? Reason::kWrite : Reason::kOperand, info.name);
  if (written && tensor.has_storage() && !tensor.storage().resizable())
    settle_memory(*tensor.storage().unsafeGetStorageImpl(), Reason::kWrite, info.name);
  if (!carrying && carries_bit(*tensor.unsafeGetTensorImpl()))
    take_bit(*tensor.unsafeGetTensorImpl());
}

}  // namespace

c10::StorageImpl* watched_storage(const at::Tensor& tensor) {
  if (!tensor.has_storage()) return nullptr;
  auto* storage = tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  return storage && storage->has_materializer() ? storage : nullptr;
}

void settle_arguments(const OpInfo& info, const Stack& stack, bool only_written) {
  const size_t first = stack.size() - info.arguments;
  const bool carrying = carry_mode();
  for (size_t i = 0; i < info.arguments; ++i) {
    const bool written = info.written(i);
    if (only_written && !written) continue;
    each_tensor(stack[first + i], [&](const at::Tensor& tensor) {
      settle_argument(info, tensor, written, carrying);
    });
  }
}

void make_room() {
  std::shared_ptr<Session> session = this_session;
  if (!session || Paused::active() || !thread_has_bit()) return;
  bool much = false;
  {
    const Lock lock(shared_mutex);
    much = session->keeps_much();
  }
  if (much) flush(*session, Reason::kBytes, "");
}

Node* root_of(Session& session) {
  int64_t origin = 0;
  {
    const Lock lock(shared_mutex);
    origin = session.origin;
  }
  if (origin < 0) origin = where_here().second;
  const Lock lock(shared_mutex);
  auto& root = (*registry().roots)[origin];
  if (!root) {
    root = std::make_unique<Node>();
    root->id = static_cast<int64_t>(registry().nodes.size());
    registry().nodes.push_back(root.get());
  }
  session.root = root.get();
  return root.get();
}

Session* recording_here() {
  Session* session = this_session.get();
  const bool paused = Paused::active(), bit = thread_has_bit();
  if (!session && !paused && bit) set_thread_bit(false);  // a left-over
  const bool records =
      session && session->mode == SessionMode::kRecord && !session->napping && !paused && bit;
  return records && !thread_is_traced() ? session : nullptr;
}

OnMetadata::OnMetadata() : carrying_(carry_mode()) {}

void OnMetadata::reads(const at::Tensor& tensor) {
  if (carries_bit(*tensor.unsafeGetTensorImpl()) && watched_storage(tensor)) pending_ = true;
}

void OnMetadata::gave(const at::Tensor& tensor) const {
  if (carrying_) return carry(tensor);
  auto& impl = *tensor.unsafeGetTensorImpl();
  if (!pending_ && (Paused::active() || !carries_bit(impl))) return;
  mark(impl);
  if (!pending_) return;
  auto* storage = watched_storage(tensor);
  if (storage && may_be_random_state(tensor.scalar_type(), tensor.numel()))
    settle_storage(storage, false, Reason::kOperand, "");
}

void OnMetadata::mark(c10::TensorImpl& impl) {
  if (!impl.has_storage()) return;
  auto* storage = impl.unsafe_storage().unsafeGetStorageImpl();
  const Lock lock(shared_mutex);
  for (auto& session : registry().sessions) {
    for (Trace* trace : {session->trace.get(), session->running.get()}) {
      const int slot = trace ? trace->find_slot(storage) : -1;
      if (slot < 0 || !trace->slots[slot].pending()) continue;
      give_bit(impl);
      trace->bearers.add(weakly(impl));
      ++session->counters.views;
      return;
    }
  }
  take_bit(impl);
}

void count_run_now(Session& session) {
  constexpr int64_t kNowAndThen = 0x1000;
  if (++session.counters.run_now - session.run_now_told < kNowAndThen) return;
  session.run_now_told = session.counters.run_now;
  ask(Ask::kPace, session.id, 0);
}

// Whether an op of index_put's kind writes one number where one mask says so: torch's own kernel
// looks at sizes and dtypes then, and calls masked_fill_.
bool fills_by_mask(const OpInfo& info, const Stack& stack) {
  const size_t first = stack.size() - info.arguments;
  const auto& indices = stack[first + 1];
  const auto& value = stack[first + 2].toTensor();
  if (stack[first + 3].toBool() || value.numel() != 1 || !value.device().is_cpu()) return false;
  int masks = 0;
  for (const c10::IValue& index : indices.toListRef()) {
    if (!index.isTensor() || !index.toTensor().defined()) continue;
    const at::Tensor& mask = index.toTensor();
    if (mask.scalar_type() != c10::kBool || !mask.device().is_cpu()) return false;
    ++masks;
  }
  return masks == 1;
}

OpClass class_of(OpInfo& info) {
  claim_if_due();
  if (info.op_class == OpClass::kUnknown) classify(info);
  return info.op_class;
}

bool is_look(OpInfo& info) { return class_of(info) == OpClass::kRunNow; }

void look(const OpInfo& info, const at::Tensor& tensor) {
  if (Session* session = recording_here()) count_run_now(*session);
  settle_argument(info, tensor, /*written=*/false, carry_mode());
  const std::shared_ptr<Session> session = this_session;
  if (!session || Paused::active()) return;
  if (std::exchange(session->drifts, false)) flush(*session, Reason::kOperand, info.name);
  const AfterLook after = note_look(*session);
  if (after == AfterLook::kSleeps) ask(Ask::kPace, session->id, 1);
  if (after != AfterLook::kNaps) return;
  try {
    flush(*session, Reason::kOperand, info.name);
  } catch (...) {
    begin_nap(*session);
    throw;
  }
  begin_nap(*session);
}

void see(OpInfo& info, c10::DispatchKeySet keys, Stack* stack) {
  const OpClass op_class = class_of(info);
  if (op_class == OpClass::kMetadata) return run_on_metadata(info, keys, stack);
  Session* session = recording_here();
  if (!session) return run_now(info, keys, stack);
  if (op_class != OpClass::kRunNow && session->passes_by(info)) {
    count_run_now(*session);
    make_room();
    return run_now(info, keys, stack, session, WhyNow::kNever);
  }
  switch (op_class) {
    case OpClass::kDescend:
      return info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
    case OpClass::kDefer:
      return record(info, keys, stack);
    case OpClass::kMask:
      if (fills_by_mask(info, *stack))
        return info.op.redispatchBoxed(keys.remove_backend(kBit), stack);
      [[fallthrough]];
    default:
      count_run_now(*session);
      make_room();
      return run_now(info, keys, stack, session);
  }
}

}  // namespace torchy
