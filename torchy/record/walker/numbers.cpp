#include "numbers.h"

namespace torchy {

c10::IValue item_of(const at::Tensor& tensor) {
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case c10::kDouble:
      return *static_cast<const double*>(data);
    case c10::kLong:
      return *static_cast<const int64_t*>(data);
    case c10::kBool:
      return *static_cast<const bool*>(data);
    default:
      return {};
  }
}

at::Tensor wrapped_number(const c10::IValue& value, bool as_float) {
  auto make = [](auto number, c10::ScalarType dtype) -> at::Tensor {
    at::Tensor tensor = at::detail::empty_cpu({}, dtype);
    std::memcpy(tensor.mutable_data_ptr(), &number, sizeof number);
    tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
    return tensor;
  };
  const auto make_as = [&](auto number, c10::ScalarType dtype) {
    return as_float ? make(static_cast<float>(number), c10::kFloat) : make(number, dtype);
  };
  if (value.isDouble()) return make_as(value.toDouble(), c10::kDouble);
  if (value.isInt()) return make_as(value.toInt(), c10::kLong);
  return make_as(value.toBool(), c10::kBool);
}

int64_t bits_of(const c10::IValue& value) {
  if (!value.isDouble()) return value.isInt() ? value.toInt() : value.toBool();
  int64_t bits = 0;
  const double number = value.toDouble();
  std::memcpy(&bits, &number, sizeof bits);
  return bits;
}

c10::IValue number_of(int64_t bits, const c10::IValue& kind) {
  if (kind.isInt()) return bits;
  if (kind.isBool()) return bits != 0;
  double number = 0;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

void Range::include(char kind, int64_t bits) {
  double value = static_cast<double>(bits);
  if (kind == 'f') std::memcpy(&value, &bits, sizeof value);
  if (!std::isfinite(value)) {
    finite = false;
    return;
  }
  low = std::min(low, value);
  high = std::max(high, value);
}

bool Range::fits(c10::ScalarType dtype) const {
  auto within = [this](auto limits) {
    using Limits = decltype(limits);
    return low >= static_cast<double>(Limits::lowest()) &&
           high <= static_cast<double>(Limits::max());
  };
  switch (dtype) {
    case c10::kDouble:
    case c10::kComplexDouble:
    case c10::kBool:
      return true;
    case c10::kFloat:
    case c10::kComplexFloat:
      return within(std::numeric_limits<float>());
    case c10::kBFloat16:
      return within(std::numeric_limits<c10::BFloat16>());
    case c10::kHalf:
      return within(std::numeric_limits<c10::Half>());
    case c10::kLong:
      return finite && low >= -0x1p63 && high < 0x1p63;
    case c10::kInt:
      return finite && within(std::numeric_limits<int32_t>());
    case c10::kShort:
      return finite && within(std::numeric_limits<int16_t>());
    case c10::kChar:
      return finite && within(std::numeric_limits<int8_t>());
    case c10::kByte:  // negative ones wrap, but not in all ops, since torch 2.15
      return finite && within(std::numeric_limits<uint8_t>());
    default:
      return harmless();
  }
}

}  // namespace torchy
