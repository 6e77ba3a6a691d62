// The C++ signatures of the ops that are recorded most: they arrive unboxed (typed.h), and are
// called so (caller.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace torchy {

// A letter for each type that an argument or a result has in a schema and in C++.
template <typename A>
constexpr char kLetter = '\0';
#define TORCHY_LETTER(letter, ...) \
  template <>                      \
  inline constexpr char kLetter<__VA_ARGS__> = letter;
TORCHY_LETTER('T', const at::Tensor&)
TORCHY_LETTER('T', at::Tensor)
TORCHY_LETTER('&', at::Tensor&)  // the first argument, written to; or that again
TORCHY_LETTER('L', at::TensorList)
TORCHY_LETTER('L', std::vector<at::Tensor>)
TORCHY_LETTER('-', void)
TORCHY_LETTER('S', const at::Scalar&)
TORCHY_LETTER('R', at::ArrayRef<at::Scalar>)
TORCHY_LETTER('b', bool)
TORCHY_LETTER('i', int64_t)
TORCHY_LETTER('I', at::IntArrayRef)
TORCHY_LETTER('J', at::OptionalIntArrayRef)
TORCHY_LETTER('d', at::ScalarType)
TORCHY_LETTER('D', std::optional<at::ScalarType>)
TORCHY_LETTER('l', std::optional<at::Layout>)
TORCHY_LETTER('e', std::optional<at::Device>)
TORCHY_LETTER('B', std::optional<bool>)
TORCHY_LETTER('f', std::optional<at::MemoryFormat>)
TORCHY_LETTER('n', c10::SymInt)
TORCHY_LETTER('N', std::optional<c10::SymInt>)
TORCHY_LETTER('M', c10::SymIntArrayRef)
#undef TORCHY_LETTER

// A result of R for arguments of A.
template <typename R, typename... A>
struct Prototype {
  static std::string letters() { return {kLetter<A>..., kLetter<R>}; }
};

inline bool returns_views(const c10::FunctionSchema& schema) {
  const auto& returns = schema.returns();
  return std::any_of(returns.begin(), returns.end(), [](const c10::Argument& result) {
    return result.alias_info() && !result.alias_info()->isWrite();
  });
}

// A schema's letters; empty if it has arguments or results of other types.
inline std::string letters_of(const c10::FunctionSchema& schema) {
  static const std::unordered_map<std::string, char> kLetters = {
      {"Tensor", 'T'},       {"Tensor[]", 'L'}, {"Scalar", 'S'},   {"Scalar[]", 'R'},
      {"bool", 'b'},         {"int", 'i'},      {"int[]", 'I'},    {"int[]?", 'J'},
      {"SymInt", 'n'},       {"SymInt?", 'N'},  {"SymInt[]", 'M'}, {"ScalarType", 'd'},
      {"ScalarType?", 'D'},  {"Layout?", 'l'},  {"Device?", 'e'},  {"bool?", 'B'},
      {"MemoryFormat?", 'f'}};
  const auto letter_of = [](const c10::Argument& value) {
    const auto letter = kLetters.find(value.real_type()->str());
    const auto* alias = value.alias_info();
    if (letter == kLetters.end() || (alias && value.kwarg_only())) return '\0';
    return alias && alias->isWrite() && letter->second == 'T' ? '&' : letter->second;
  };
  std::string letters;
  for (const auto& argument : schema.arguments()) letters += letter_of(argument);
  if (schema.returns().size() > 1) return "";
  letters += schema.returns().empty() ? '-' : letter_of(schema.returns()[0]);
  return letters.find('\0') == std::string::npos ? letters : "";
}

template <bool kViews, typename... P>
struct PrototypeList {
  // Calls f with the one that a schema has, if it is one of these.
  template <typename F>
  static void visit(const c10::FunctionSchema& schema, const F& f) {
    if (returns_views(schema) != kViews) return;
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
    PrototypeList</*kViews=*/false, Prototype<Out, T>, Prototype<Out, T, T>, Prototype<Out, T, S>,
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
    PrototypeList</*kViews=*/false, Prototype<Outs, List>, Prototype<Outs, List, S>,
                  Prototype<Outs, List, Scalars>, Prototype<Outs, List, List>,
                  Prototype<Outs, List, List, S>, Prototype<Outs, List, List, List>,
                  Prototype<Outs, List, List, List, S>, Prototype<Outs, List, List, List, Scalars>,

                  Prototype<None, List>, Prototype<None, List, S>, Prototype<None, List, Scalars>,
                  Prototype<None, List, List>, Prototype<None, List, List, S>,
                  Prototype<None, List, List, List>, Prototype<None, List, List, List, S>,
                  Prototype<None, List, List, List, Scalars>, Prototype<None, List, List, bool>>;

// Of ops that make a tensor as large as another one.
using Layout = std::optional<at::Layout>;
using Device = std::optional<at::Device>;
using Flag = std::optional<bool>;
using Format = std::optional<at::MemoryFormat>;
using Likes =
    PrototypeList</*kViews=*/false, Prototype<Out, T, Dtype, Layout, Device, Flag, Format>,
                  Prototype<Out, T, S, Dtype, Layout, Device, Flag, Format>>;

// Of ops that return views.
using Size = c10::SymInt;
using MaybeSize = std::optional<c10::SymInt>;
using Sizes = c10::SymIntArrayRef;
using Views =
    PrototypeList</*kViews=*/true, Prototype<Out, T>, Prototype<Out, T, int64_t>,
                  Prototype<Out, T, int64_t, int64_t>, Prototype<Out, T, at::IntArrayRef>,
                  Prototype<Out, T, int64_t, Size>, Prototype<Out, T, int64_t, Size, Size>,
                  Prototype<Out, T, int64_t, MaybeSize, MaybeSize, Size>, Prototype<Out, T, Sizes>,
                  Prototype<Out, T, Sizes, bool>, Prototype<Out, T, Sizes, Sizes>,
                  Prototype<Out, T, Sizes, Sizes, MaybeSize>,

                  Prototype<Outs, T, int64_t>, Prototype<Outs, T, Size, int64_t>,
                  Prototype<Outs, T, Sizes, int64_t>>;

// Of factories.
using Factories = PrototypeList<
    /*kViews=*/false, Prototype<Out, Sizes, Dtype, Layout, Device, Flag>,
    Prototype<Out, Sizes, S, Dtype, Layout, Device, Flag>,
    Prototype<Out, S, Dtype, Layout, Device, Flag>,
    Prototype<Out, S, S, Dtype, Layout, Device, Flag>,
    Prototype<Out, S, S, S, Dtype, Layout, Device, Flag>,
    Prototype<Out, S, S, int64_t, Dtype, Layout, Device, Flag>,
    Prototype<Out, Size, Dtype, Layout, Device, Flag>,
    Prototype<Out, Size, Size, Dtype, Layout, Device, Flag>,
    Prototype<Out, Size, Sizes, Dtype, Layout, Device, Flag>,
    Prototype<Out, Size, Size, Sizes, Dtype, Layout, Device, Flag>>;
}  // namespace prototypes

}  // namespace torchy
