#include "claim.h"

#include <ATen/SequenceNumber.h>

#include <algorithm>

#include "draws.h"
#include "gradients.h"
#include "prototypes.h"
#include "select.h"

namespace torchy {

namespace {

// Autograd: the CPU's own kernel takes over, and what it runs comes here again.
void pass(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

// An op of another library that is no kernel, but a function for all devices: it may read by
// pointers, also what the ops inside it have made.
void pass_foreign(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const uint64_t since = at::sequence_number::peek();
  pass_whole(op, keys, stack);
  hook_gradients(*info_of(op), *stack, since);
}

void settle_and_pass(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  settle_arguments(*info_of(op), *stack);
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

// Ops that are made of others may resize what they write to, and nobody else sees that.
void settle_written_and_pass(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                             Stack* stack) {
  settle_arguments(*info_of(op), *stack, /*only_written=*/true);
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

// Ops that are made of others, but read memory through const pointers: of their operands ...
constexpr const char* kImplicitReaders[] = {"aten::tensor_split.tensor_indices_or_sections",
                                            "aten::_reshape_from_tensor",
                                            "aten::lstm.data",
                                            "aten::gru.data",
                                            "aten::rnn_tanh.data",
                                            "aten::rnn_relu.data"};
// ... and of what the ops inside them have made: copies that are dense, or of another dtype.
constexpr const char* kOpaque[] = {"aten::_sobol_engine_draw",
                                   "aten::_sobol_engine_ff_",
                                   "aten::_sobol_engine_initialize_state_",
                                   "aten::_sobol_engine_scramble_",
                                   "aten::choose_qparams_optimized",
                                   "aten::sparse_coo_tensor.indices",
                                   "aten::sparse_coo_tensor.indices_size",
                                   "aten::_sparse_coo_tensor_unsafe",
                                   "aten::_validate_sparse_coo_tensor_args",
                                   "aten::ctc_loss.Tensor",
                                   "aten::max_pool1d",
                                   "aten::_saturate_weight_to_fp16",
                                   "aten::fbgemm_linear_quantize_weight",
                                   "aten::fbgemm_linear_fp16_weight",
                                   "aten::fbgemm_linear_fp16_weight_fp32_activation",
                                   "aten::fbgemm_linear_int8_weight",
                                   "aten::fbgemm_linear_int8_weight_fp32_activation",
                                   "aten::fbgemm_pack_gemm_matrix_fp16",
                                   "aten::fbgemm_pack_quantized_matrix",
                                   "aten::fbgemm_pack_quantized_matrix.KN",
                                   "aten::_rowwise_prune",
                                   "aten::_pack_padded_sequence_backward",
                                   "aten::_pad_packed_sequence"};

// The kernel of an op that is claimed.
struct See : c10::OperatorKernel {
  explicit See(OpInfo* info) : info(info) {}
  OpInfo* info;

  void operator()(const c10::OperatorHandle&, c10::DispatchKeySet keys, Stack* stack) const {
    see(*info, keys, stack);
  }
};

}  // namespace

OpInfo* info_of(const c10::OperatorHandle& op) {
  auto& all = registry();
  const Lock lock(shared_mutex);
  auto& info = all.op_of_name[op.operator_name()];
  if (!info) {
    auto fresh = std::make_unique<OpInfo>(op);
    info = fresh.get();
    fresh->id = static_cast<int64_t>(all.ops.size());
    all.ops.push_back(std::move(fresh));
  }
  return info;
}

void pass_whole(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  settle_arguments(*info_of(op), *stack);
  Paused paused;
  op.redispatchBoxed(keys.remove_backend(kBit), stack);
}

Claims::Claims()
    : listening_(c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<News>())) {
  absorb();
  waiting_.clear();  // what had no kernel when the walker was loaded will get none
}

void Claims::absorb() {
  const Lock lock(mutex_);
  NoteWarnings silent;
  for (const auto& name : News::take()) {
    waiting_.emplace_back(name, kPatience);
    if (auto op = c10::Dispatcher::singleton().findSchema(name)) info_of(*op)->refresh();
  }
  auto settled = [this](std::pair<c10::OperatorName, int>& entry) TORCHY_REQUIRES(mutex_) {
    auto op = c10::Dispatcher::singleton().findSchema(entry.first);
    return !op || claim(*op) || --entry.second == 0;
  };
  waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), settled), waiting_.end());
  any_waiting_ = !waiting_.empty();
}

void Claims::renew(const c10::OperatorName& name) {
  auto op = c10::Dispatcher::singleton().findSchema(name);
  if (!op) return;
  const Lock lock(mutex_);
  NoteWarnings silent;
  const bool other =
      op->hasKernelForDispatchKey(c10::DispatchKey::AutogradCPU) || info_of(*op)->typed;
  if (other && renewed_.insert(name).second)
    put(*op, c10::DispatchKey::AutogradPrivateUse3,
        torch::CppFunction::makeFromBoxedFunction<&settle_and_pass>());
  info_of(*op)->op_class = OpClass::kUnknown;
}

bool Claims::claim(const c10::OperatorHandle& op) {
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
  if (served && is_specialized(op) && specialized_.insert(name).second)
    specialize(info_of(op), registrations_);
  const bool sparse = name.name.find("sparse_") != std::string::npos;
  if (op.hasKernelForDispatchKey(DispatchKey::BackendSelect) &&
      (sparse || (composite && !has_tensors(op))) && is_new(name, DispatchKey::BackendSelect) &&
      selects_as_torch(op) && !specialize_factory(info_of(op), registrations_))
    put(op, DispatchKey::BackendSelect, torch::CppFunction::makeFromBoxedFunction<&run_factory>());
  static const std::pair<DispatchKey, DispatchKey> kOthers[] = {
      {DispatchKey::SparseCPU, DispatchKey::SparsePrivateUse3},
      {DispatchKey::SparseCsrCPU, DispatchKey::SparseCsrPrivateUse3},
      {DispatchKey::QuantizedCPU, DispatchKey::QuantizedPrivateUse3},
      {DispatchKey::NestedTensorCPU, DispatchKey::NestedTensorPrivateUse3}};
  for (auto [from, to] : kOthers)  // composite kernels take operands of both kinds, and read them
    if ((composite || op.hasKernelForDispatchKey(from)) && is_new(name, to))
      put(op, to, torch::CppFunction::makeFromBoxedFunction<&pass_whole>());
  // whose oneDNN kernels take plain tensors beside their own
  const bool mixed =
      op.hasKernelForDispatchKey(DispatchKey::MkldnnCPU) &&
      (!op.hasKernelForDispatchKey(DispatchKey::CPU) || name.name == "aten::native_batch_norm");
  if (mixed && is_new(name, DispatchKey::BackendSelect) &&
      !op.hasKernelForDispatchKey(DispatchKey::BackendSelect) &&
      !specialize_mixed(info_of(op), registrations_))
    put(op, DispatchKey::BackendSelect,
        torch::CppFunction::makeFromBoxedFunction<&see_beside_onednn>());
  if (op.hasKernelForDispatchKey(DispatchKey::AutogradCPU) &&
      is_new(name, DispatchKey::AutogradPrivateUse3))
    put(op, DispatchKey::AutogradPrivateUse3, torch::CppFunction::makeFromBoxedFunction<&pass>());
  const bool made = !served && op.hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd);
  for (auto key : {DispatchKey::PrivateUse3, DispatchKey::AutogradPrivateUse3}) {
    if (made && *name.getNamespace() != "aten" && is_new(name, key))
      put(op, key, torch::CppFunction::makeFromBoxedFunction<&pass_foreign>());
    if (made && has_out(op) && is_new(name, key))
      put(op, key, torch::CppFunction::makeFromBoxedFunction<&settle_written_and_pass>());
  }
  const auto full = c10::toString(name);
  for (auto key : {DispatchKey::PrivateUse3, DispatchKey::AutogradPrivateUse3}) {
    const auto is_op = [&](const char* other) { return full == other; };
    if (std::any_of(std::begin(kImplicitReaders), std::end(kImplicitReaders), is_op) &&
        is_new(name, key))
      put(op, key, torch::CppFunction::makeFromBoxedFunction<&settle_and_pass>());
    if (std::any_of(std::begin(kOpaque), std::end(kOpaque), is_op) && is_new(name, key))
      put(op, key, torch::CppFunction::makeFromBoxedFunction<&pass_whole>());
  }
  return served || made;
}

bool Claims::is_specialized(const c10::OperatorHandle& op) {
  if (is_draw(*info_of(op))) return true;
  const auto& name = op.operator_name();
  constexpr std::string_view kOwn = "aten::";
  if (!name.name.starts_with(kOwn)) return false;
  if (name.name == kItem || name.name.starts_with("aten::_foreach_")) return true;
  if (returns_views(op.schema()) || name.name.ends_with("_like")) return true;
  std::string base = name.name.substr(kOwn.size());
  if (base.ends_with('_') && !base.ends_with("__")) base.pop_back();
  return recordable_ops().contains(base);
}

bool Claims::has_tensors(const c10::OperatorHandle& op) {
  for (const auto& argument : op.schema().arguments())
    if (argument.type()->str().find("Tensor") != std::string::npos) return true;
  return false;
}

bool Claims::has_out(const c10::OperatorHandle& op) {
  for (const auto& argument : op.schema().arguments())
    if (argument.kwarg_only() && argument.is_out()) return true;
  return false;
}

void Claims::put(const c10::OperatorHandle& op, c10::DispatchKey key,
                 torch::CppFunction&& function) {
  const auto& name = op.operator_name();
  auto full = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
  auto space = std::string(*name.getNamespace());
  auto& library = libraries_[space + "/" + c10::toString(key)];
  if (!library)
    library =
        std::make_unique<torch::Library>(torch::Library::IMPL, space, key, __FILE__, __LINE__);
  library->impl(full.c_str(), std::move(function));
}

bool claims_are_due() { return loaded().load(std::memory_order_acquire) && claims().due(); }

void claim_if_due() {
  if (claims_are_due()) claims().absorb();
}

}  // namespace torchy
