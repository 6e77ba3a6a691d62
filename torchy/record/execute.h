// Runs a flush: the steps of a program (see run/program.py), each a kernel or a call of one op.
#pragma once

#include <chrono>

#include "numbers.h"
#include "trace.h"

namespace torchy {

inline void allocate(Trace& trace, int64_t index) {
  Slot& slot = trace.slots[index];
  if (!slot.memory.get() && slot.bytes > 0) slot.memory = allocate_memory(slot.bytes, trace.saved);
  trace.addresses[index] = reinterpret_cast<int64_t>(slot.memory.get());
}

// A real tensor on the memory of a slot, which the program cannot see.
inline at::Tensor shadow(Trace& trace, int view_index) {
  const View& view = trace.views[view_index];
  Slot& slot = trace.slots[view.slot];
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), c10::SymInt(static_cast<int64_t>(slot.bytes)),
      c10::DataPtr(slot.address(), c10::Device(c10::kCPU)), nullptr, /*resizable=*/false);
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)),
      c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::AutocastCPU}),
      c10::scalarTypeToTypeMeta(view.dtype));
  const int64_t* at = &trace.words[view.at];
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(
      c10::IntArrayRef(at + 1, view.rank), c10::IntArrayRef(at + 1 + view.rank, view.rank), at[0]);
  return tensor;
}

// A step's arguments with this recording's operands and numbers.
inline torch::jit::Stack arguments_of(Trace& trace, const Step& step) {
  auto operand = step.operands.begin();
  auto number = trace.numbers.begin() + static_cast<ptrdiff_t>(step.numbers);
  torch::jit::Stack stack;
  for (size_t i = 0; i < step.arguments.size(); ++i) {
    const c10::IValue& known = step.arguments[i];
    const bool runtime = step.info->runtime(i, known);
    if (runtime && is_scalar(known)) {
      stack.push_back(number_of(*number++, known));
      continue;
    }
    stack.push_back(map_tensors(known, [&](const at::Tensor& model) {
      if (is_number(model))
        return runtime ? wrapped_number(number_of(*number++, item_of(model))) : model;
      at::Tensor tensor = shadow(trace, operand++->view);
      if (model.requires_grad()) tensor.set_requires_grad(true);
      return tensor;
    }));
  }
  return stack;
}

// Runs one recorded op as torch itself would have; its results become the memory of its slots.
inline void call(Trace& trace, int64_t index) {
  Node* node = trace.path[index];
  const Step& step = *node->step;
  c10::InferenceMode inference(false);
  c10::AutoGradMode grad(step.grad_mode);
  BelowEverything below;  // last: the modes set the keys of the thread
  for (int slot : node->result_slots)
    if (slot >= 0 && trace.slots[slot].bytes >= kLarge) LargeBlock::drop_spare();
  torch::jit::Stack stack = arguments_of(trace, step);
  step.info->op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
  for (size_t i = 0; i < step.info->results; ++i) {
    int slot_index = node->result_slots[i];
    if (slot_index < 0 || step.info->result_argument[i] >= 0) continue;
    const at::Tensor& result = stack[i].toTensor();
    const View& view = trace.views[node->result_views[i]];
    const int64_t* at = &trace.words[view.at];
    Slot& slot = trace.slots[slot_index];
    TORCH_INTERNAL_ASSERT(
        result.sizes() == c10::IntArrayRef(at + 1, view.rank) && result.scalar_type() == view.dtype,
        "torchy: ", c10::toString(step.info->op.operator_name()),
        " gave another shape than recorded");
    bool stolen = result.strides() == c10::IntArrayRef(at + 1 + view.rank, view.rank) &&
                  result.storage_offset() == 0 && result.storage().nbytes() == slot.bytes &&
                  result.storage().use_count() == 1 && !slot.memory.get();
    if (stolen) {
      slot.memory =
          std::move(result.storage().unsafeGetStorageImpl()->_mutable_data_ptr_no_checks());
      trace.addresses[slot_index] = reinterpret_cast<int64_t>(slot.memory.get());
    } else {
      allocate(trace, slot_index);
      shadow(trace, node->result_views[i]).copy_(result);
    }
  }
}

// Reads a step's words one after another.
struct Cursor {
  const int64_t* at;
  int64_t next() { return *at++; }
  c10::IntArrayRef list(int64_t width = 1) {
    auto size = static_cast<size_t>(next() * width);
    at += size;
    return {at - size, size};
  }
};

// Launches a kernel with the arguments packed last time, if all layouts are as they were then: new
// are only the addresses and the numbers. False if not.
inline bool launch(Trace& trace, Cursor cursor, int64_t kernel) {
  constexpr size_t kHeader = 3;        // codegen/cpu/driver.py: words before the addresses
  constexpr int64_t kSmall = 1 << 15;  // ATen's own grain size
  const auto* known = reinterpret_cast<const int64_t*>(cursor.next());
  const auto packed = static_cast<size_t>(cursor.next());
  const auto views = cursor.list(4);  // words, rank, slot, item size; the first is the space
  const auto numbers = cursor.list();
  if (!known) return false;
  for (size_t i = 0; i < views.size(); i += 4) {
    const int64_t* layout = &trace.words[views[i]] + 1;
    const int64_t words = 2 * views[i + 1];
    if (!std::equal(layout, layout + words, known)) return false;
    known += words;
  }
  c10::SmallVector<int64_t, 64> arguments(known, known + packed);
  int64_t* address = &arguments[kHeader];
  for (size_t i = 4; i < views.size(); i += 4)
    *address++ = trace.addresses[views[i + 2]] + trace.words[views[i]] * views[i + 3];
  int64_t* number = address + (views.size() / 4 - 1);  // behind the steps
  for (int64_t index : numbers) *number++ = trace.numbers[index];
  reinterpret_cast<void (*)(int64_t*, int32_t)>(kernel)(
      arguments.data(), arguments[0] >= kSmall ? at::get_num_threads() : 1);
  return true;
}

enum class Progress : int64_t { kDone = 0, kPause = 1, kNeedsPacking = 2 };

// Runs steps from where the trace stands; now and then comes back, so that Python sees its signals.
inline Progress execute(Trace& trace, const int64_t* program, int64_t size) {
  using Clock = std::chrono::steady_clock;
  auto now = Clock::now();
  const auto until = now + std::chrono::milliseconds(20);
  TORCH_INTERNAL_ASSERT(trace.at == 0 || trace.program == program,
                        "torchy: a flush goes on with another program");
  trace.program = program;
  Paused paused;
  while (trace.at < size) {
    if (now > until) return Progress::kPause;
    Cursor cursor{program + trace.at};
    const int64_t words = cursor.next(), op = cursor.next(), kernel = cursor.next();
    for (int64_t slot : cursor.list()) allocate(trace, slot);
    const auto release = cursor.list();
    if (!kernel) {
      call(trace, op);
    } else if (!launch(trace, cursor, kernel)) {
      return Progress::kNeedsPacking;
    }
    for (int64_t index : release) {
      Slot& slot = trace.slots[index];
      if (slot.live) continue;
      slot.memory.clear();
      slot.kept.reset();
      trace.addresses[index] = 0;
    }
    trace.at += words;
    const auto after = Clock::now();
    trace.times.push_back(std::chrono::nanoseconds(after - now).count());
    if (!kernel) trace.called += trace.times.back();
    now = after;
  }
  return Progress::kDone;
}

// The progress; where a step needs packing, that plus its place in the program.
inline int64_t execute_program(int64_t session_id, int64_t program, int64_t size) {
  std::shared_ptr<Trace> trace;
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (auto session = registry().find(session_id)) trace = session->running;
  }
  if (!trace) return static_cast<int64_t>(Progress::kDone);  // finished from within
  auto progress = execute(*trace, reinterpret_cast<const int64_t*>(program), size);
  return static_cast<int64_t>(progress) + (progress == Progress::kNeedsPacking ? trace->at : 0);
}

// Runs a flush the way it was run before, without Python; false if it has to see this one, or to
// go on with it.
inline bool repeat(Session& session, Reason reason, const char* text) {
  const auto begin = std::chrono::steady_clock::now();
  std::shared_ptr<Trace> trace;
  std::shared_ptr<Script> script;  // places may be forgotten once the flush is finished
  {
    std::lock_guard<std::mutex> lock(registry().mutex);
    trace = session.running;
    if (trace->at != 0 || trace->seen) return false;
    for (auto& known : trace->path.back()->scripts) {
      if (known->busy || known->variant != session.variant || known->flags != trace->flags ||
          known->reason != static_cast<int64_t>(reason) || known->text != text)
        continue;
      script = known;
      script->busy = true;
      trace->script = script->id;
      break;
    }
  }
  if (!script) return false;
  struct Idle {
    Script& script;
    ~Idle() {
      std::lock_guard<std::mutex> lock(registry().mutex);
      script.busy = false;
    }
  } idle{*script};
  for (;;) {
    Progress progress;
    try {
      progress = execute(*trace, script->program, script->size);
    } catch (const std::exception&) {
      return false;  // Python tries that step again, and names the op
    }
    if (progress == Progress::kDone) break;
    auto what = progress == Progress::kPause ? Ask::kPause : Ask::kPack;
    ask(what, session.id, script->id);
    std::lock_guard<std::mutex> lock(registry().mutex);
    if (session.running != trace) return true;  // finished by what ran meanwhile
  }
  const int64_t id = script->id;
  finish_flush(session, script->origin);
  const std::chrono::nanoseconds passed = std::chrono::steady_clock::now() - begin;
  bool much = false;
  {
    constexpr size_t kMuch = 64;
    std::lock_guard<std::mutex> lock(registry().mutex);
    session.log.push_back({id,
                           trace->serial,
                           trace->at,
                           passed.count(),
                           trace->called,
                           {},
                           std::move(trace->words),
                           std::move(trace->numbers),
                           {}});
    ++session.repeated;
    much = session.log.size() % kMuch == 0;
  }
  if (much) ask(Ask::kPace, session.id, 0);
  return true;
}

inline void flush(Session& session, Reason reason, const char* text) {
  Paused paused;
  const int claimed = begin_flush(session, /*wait=*/false);
  if (claimed == 0) return;
  try {
    if (claimed != 1 || !repeat(session, reason, text))
      ask(Ask::kFlush, session.id, static_cast<int64_t>(reason), text);
  } catch (...) {
    if (claimed == 1) leave_flush(session);
    throw;
  }
}

}  // namespace torchy
