// Python's numbers among an op's arguments: as they are, or as zero-dimensional tensors that are
// marked as wrapped.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "keys.h"

namespace torchy {

inline bool is_number(const at::Tensor& tensor) {
  auto* impl = tensor.unsafeGetTensorImpl();
  return impl->is_wrapped_number() && !carries_bit(*impl);
}

inline bool is_scalar(const c10::IValue& value) {
  return value.isDouble() || value.isInt() || value.isBool();
}

// A wrapped number's value, None if it is complex: to be read when the op is recorded, since its
// memory may be reused by the next one.
c10::IValue item_of(const at::Tensor& tensor);

// The tensor that torch makes of a number, or the same converted to float32; runs no op.
at::Tensor wrapped_number(const c10::IValue& value, bool as_float = false);

int64_t bits_of(const c10::IValue& value);

// The inverse, for a number of the same kind as another one.
c10::IValue number_of(int64_t bits, const c10::IValue& kind);

// The range that an op's numbers span.
struct Range {
  double low = 0, high = 0;
  bool finite = true;

  void include(char kind, int64_t bits);

  bool harmless() const { return finite && low >= 0 && high <= 127; }

  // Whether c10::checked_convert, and a cast without a check, take all of them.
  bool fits(c10::ScalarType dtype) const;
};

}  // namespace torchy
