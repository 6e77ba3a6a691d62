#include "trie.h"

#include <tuple>

namespace torchy {

OpInfo::OpInfo(const c10::OperatorHandle& handle) : op(handle), name(op.operator_name().name) {
  const std::string& overload = op.operator_name().overload_name;
  if (!overload.empty()) name += "." + overload;
  read_schema();
}

void OpInfo::read_schema() {
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
    const bool tensor = result.type()->kind() == c10::TypeKind::TensorType;
    if (!tensor) fresh_tensors = false;
    if (tensor && !result.alias_info() && schema.name() != "aten::_unsafe_view") allocates = true;
  }
}

void OpInfo::refresh() {
  const OpInfo now(op);
  const auto facts = [](const OpInfo& info) {
    return std::tie(info.arguments, info.results, info.writes, info.result_argument,
                    info.fresh_tensors, info.allocates);
  };
  if (facts(*this) == facts(now)) return;  // other threads may be reading it
  op_class = OpClass::kUnknown;
  std::tie(arguments, results, writes, result_argument, fresh_tensors, allocates) = facts(now);
}

Step* Node::find(const Words& key) {
  if (last && last->key == key) return last;
  for (auto& child : children)
    if (child->key == key) return last = child.get();
  return nullptr;
}

}  // namespace torchy
