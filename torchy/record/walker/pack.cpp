#include "pack.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace torchy {

namespace {

// What a step says of one view that its kernel uses; see run/program.py. The first is the space.
struct ViewWords {
  int64_t at, rank, slot, itemsize, mode;

  c10::IntArrayRef sizes(const Trace& trace) const {
    return {&trace.words[at] + 1, static_cast<size_t>(rank)};
  }
  c10::IntArrayRef strides(const Trace& trace) const {
    return {&trace.words[at] + 1 + rank, static_cast<size_t>(rank)};
  }
  // In the inner dimension, in bytes, as the code takes it to be.
  int64_t inner_step() const { return mode == kScalar || mode == kRepeat ? 0 : itemsize; }
};

class Packer {
 public:
  static constexpr size_t kHeader = 3;  // words before the addresses

  // `views`: the space, then each access.
  Packer(const Trace& trace, const ViewWords* views, size_t accesses, size_t numbers)
      : trace_(trace),
        space_(views[0]),
        accesses_(views + 1),
        count_(accesses),
        numbers_(numbers) {}

  // Lays the arguments out; addresses and numbers are left open.
  void pack(bool linear, int64_t* out) const {
    const auto sizes = space_.sizes(trace_);
    const int64_t total = c10::multiply_integers(sizes);
    if (linear) {
      write(out, total, total, {}, nullptr);
      return;
    }
    Rows rows = coalesce();
    if (rows.empty() || !fits(rows[0])) {  // the inner dimension has one element, so it went away
      Row inner{1, {}};
      for (size_t a = 0; a < count_; ++a) inner.steps.push_back(accesses_[a].inner_step());
      rows.insert(rows.begin(), std::move(inner));
    }
    write(out, total, rows[0].size, c10::ArrayRef<Row>(rows).slice(1), rows[0].steps.data());
  }

 private:
  struct Row {
    int64_t size;
    c10::SmallVector<int64_t, 12> steps;  // bytes, by access
  };
  using Rows = c10::SmallVector<Row, 4>;

  // The dimensions of more than one element, innermost in memory first, merged where all accesses
  // allow it.
  Rows coalesce() const {
    const auto sizes = space_.sizes(trace_), strides = space_.strides(trace_);
    c10::SmallVector<size_t, 8> order;
    for (size_t d = 0; d < sizes.size(); ++d)
      if (sizes[d] != 1) order.push_back(d);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return strides[a] > strides[b]; });
    std::reverse(order.begin(), order.end());
    Rows rows;
    int64_t dense = 1;
    for (size_t d : order) {
      Row row{sizes[d], {}};
      for (size_t a = 0; a < count_; ++a) row.steps.push_back(step(accesses_[a], d, dense));
      dense *= sizes[d];
      if (!rows.empty() && extends(rows.back(), row)) {
        rows.back().size *= row.size;
      } else {
        rows.push_back(std::move(row));
      }
    }
    return rows;
  }

  int64_t step(const ViewWords& access, size_t dimension, int64_t dense) const {
    if (access.mode == kScalar) return 0;
    if (access.mode == kLinear) return dense * access.itemsize;
    const auto space = space_.sizes(trace_), sizes = access.sizes(trace_);
    const size_t missing = space.size() - sizes.size();
    if (dimension < missing) return 0;
    const size_t own = dimension - missing;
    if (sizes[own] == 1 && space[dimension] != 1) return 0;
    return access.strides(trace_)[own] * access.itemsize;
  }

  static bool extends(const Row& inner, const Row& outer) {
    for (size_t a = 0; a < inner.steps.size(); ++a)
      if (inner.steps[a] * inner.size != outer.steps[a]) return false;
    return true;
  }

  // Whether the code, which takes the modes at their word, is right for these inner steps.
  bool fits(const Row& inner) const {
    for (size_t a = 0; a < count_; ++a)
      if (accesses_[a].mode != kStrided && inner.steps[a] != accesses_[a].inner_step())
        return false;
    return true;
  }

  void write(int64_t* out, int64_t total, int64_t inner, c10::ArrayRef<Row> outer,
             const int64_t* steps) const {
    *out++ = total;
    *out++ = inner;
    *out++ = static_cast<int64_t>(outer.size());
    out += count_;  // addresses
    for (size_t a = 0; a < count_; ++a) *out++ = steps ? steps[a] : accesses_[a].inner_step();
    out += numbers_;
    for (size_t i = outer.size(); i-- > 0;) *out++ = outer[i].size;
    for (size_t i = outer.size(); i-- > 0;)
      out = std::copy(outer[i].steps.begin(), outer[i].steps.end(), out);
  }

  const Trace& trace_;
  const ViewWords& space_;
  const ViewWords* accesses_;
  size_t count_, numbers_;
};

}  // namespace

void launch(const Trace& trace, Cursor cursor, int64_t kernel) {
  constexpr int64_t kSmall = 1 << 15;  // ATen's own grain size
  const bool linear = cursor.next() != 0;
  const auto words = cursor.list(sizeof(ViewWords) / sizeof(int64_t));
  const auto numbers = cursor.list();
  const auto* views = reinterpret_cast<const ViewWords*>(words.data());
  const size_t accesses = words.size() * sizeof(int64_t) / sizeof(ViewWords) - 1;
  auto* filled = const_cast<int64_t*>(cursor.at);  // a program serves one flush at a time
  const int64_t known_size = filled[1];
  int64_t* known = filled + 2;
  int64_t* packed = known + known_size;
  bool same = *filled != 0;
  const int64_t* at = known;
  for (size_t i = 0; same && i <= accesses; ++i) {
    const int64_t* layout = &trace.words[views[i].at] + 1;
    same = std::equal(layout, layout + 2 * views[i].rank, at);
    at += 2 * views[i].rank;
  }
  if (!same) {
    int64_t* to = known;
    for (size_t i = 0; i <= accesses; ++i)
      to = std::copy_n(&trace.words[views[i].at] + 1, 2 * views[i].rank, to);
    Packer(trace, views, accesses, numbers.size()).pack(linear, packed);
    *filled = 1;
  }
  int64_t* address = packed + Packer::kHeader;
  for (size_t i = 1; i <= accesses; ++i)
    *address++ = trace.addresses[views[i].slot] + trace.words[views[i].at] * views[i].itemsize;
  int64_t* number = address + accesses;  // behind the steps
  for (int64_t index : numbers) *number++ = trace.numbers[index];
  reinterpret_cast<void (*)(int64_t*, int32_t)>(kernel)(
      packed, packed[0] >= kSmall ? at::get_num_threads() : 1);
}

}  // namespace torchy
