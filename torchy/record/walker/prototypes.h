// The C++ signatures of the ops that are recorded most: they arrive unboxed (typed.h), and are
// called so (caller.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace torchy {

// A letter for each type that an argument or a result has in a schema and in C++.
template <typename A>
constexpr char kLetter = '\0';
template <>
inline constexpr char kLetter<const at::Tensor&> = 'T';
template <>
inline constexpr char kLetter<at::Tensor> = 'T';
template <>
inline constexpr char kLetter<at::Tensor&> = '&';  // the first argument, written to; or that again
template <>
inline constexpr char kLetter<at::TensorList> = 'L';
template <>
inline constexpr char kLetter<std::vector<at::Tensor>> = 'L';
template <>
inline constexpr char kLetter<void> = '-';
template <>
inline constexpr char kLetter<const at::Scalar&> = 'S';
template <>
inline constexpr char kLetter<at::ArrayRef<at::Scalar>> = 'R';
template <>
inline constexpr char kLetter<bool> = 'b';
template <>
inline constexpr char kLetter<int64_t> = 'i';
template <>
inline constexpr char kLetter<at::IntArrayRef> = 'I';
template <>
inline constexpr char kLetter<at::OptionalIntArrayRef> = 'J';
template <>
inline constexpr char kLetter<at::ScalarType> = 'd';
template <>
inline constexpr char kLetter<std::optional<at::ScalarType>> = 'D';

// A result of R for arguments of A.
template <typename R, typename... A>
struct Prototype {
  static std::string letters() { return {kLetter<A>..., kLetter<R>}; }
};

// The same of a schema; empty if it has arguments or results of other types.
inline std::string letters_of(const c10::FunctionSchema& schema) {
  static const std::unordered_map<std::string, char> kLetters = {
      {"Tensor", 'T'},     {"Tensor[]", 'L'},   {"Scalar", 'S'}, {"Scalar[]", 'R'},
      {"bool", 'b'},       {"int", 'i'},        {"int[]", 'I'},  {"int[]?", 'J'},
      {"ScalarType", 'd'}, {"ScalarType?", 'D'}};
  std::string letters;
  auto add = [&letters](const c10::Argument& value) {
    const auto letter = kLetters.find(value.real_type()->str());
    const auto* alias = value.alias_info();
    if (letter == kLetters.end() || (alias && (!alias->isWrite() || value.kwarg_only())))
      return false;
    letters += alias && letter->second == 'T' ? '&' : letter->second;
    return true;
  };
  for (const auto& argument : schema.arguments())
    if (!add(argument)) return "";
  if (schema.returns().size() > 1) return "";
  if (schema.returns().empty()) return letters + '-';
  return add(schema.returns()[0]) ? letters : "";
}

template <typename... P>
struct PrototypeList {
  // Calls f with the one that a schema has, if it is one of these.
  template <typename F>
  static void visit(const c10::FunctionSchema& schema, const F& f) {
    const std::string letters = letters_of(schema);
    static_cast<void>(((letters == P::letters() && (f(P()), true)) || ...));
  }
};

namespace prototypes {
using T = const at::Tensor&;
using S = const at::Scalar&;
using Dtype = std::optional<at::ScalarType>;
using Dims = at::OptionalIntArrayRef;
using Out = at::Tensor;
using Self = at::Tensor&;
using List = at::TensorList;
using Scalars = at::ArrayRef<at::Scalar>;
using Outs = std::vector<at::Tensor>;
using None = void;

// Of ops that are recorded.
using Single =
    PrototypeList<Prototype<Out, T>, Prototype<Out, T, T>, Prototype<Out, T, S>,
                  Prototype<Out, T, T, S>, Prototype<Out, T, T, T>, Prototype<Out, T, T, T, S>,
                  Prototype<Out, T, T, T, S, S>, Prototype<Out, T, Dtype>,
                  Prototype<Out, T, int64_t, bool>, Prototype<Out, T, at::IntArrayRef, bool>,
                  Prototype<Out, T, Dims, bool>, Prototype<Out, T, Dims, bool, Dtype>,
                  Prototype<Out, T, T, int64_t, at::ScalarType>,

                  Prototype<Self, Self>, Prototype<Self, Self, T>, Prototype<Self, Self, S>,
                  Prototype<Self, Self, T, S>, Prototype<Self, Self, T, T>,
                  Prototype<Self, Self, T, T, S>, Prototype<Self, Self, T, bool>>;

// Of ops on lists, whose kernels run others on each tensor.
using Lists =
    PrototypeList<Prototype<Outs, List>, Prototype<Outs, List, S>, Prototype<Outs, List, Scalars>,
                  Prototype<Outs, List, List>, Prototype<Outs, List, List, S>,
                  Prototype<Outs, List, List, List>, Prototype<Outs, List, List, List, S>,
                  Prototype<Outs, List, List, List, Scalars>,

                  Prototype<None, List>, Prototype<None, List, S>, Prototype<None, List, Scalars>,
                  Prototype<None, List, List>, Prototype<None, List, List, S>,
                  Prototype<None, List, List, List>, Prototype<None, List, List, List, S>,
                  Prototype<None, List, List, List, Scalars>, Prototype<None, List, List, bool>>;
}  // namespace prototypes

}  // namespace torchy
