#include "pack.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>

namespace torchy {

namespace {

// How a kernel walks its space: as one run, row by row, in columns that stand side by side, row by
// row however these lie, as one row, or in any other order.
enum class Walk : int64_t {
  kStrided = 0,
  kLinear = 1,
  kRows = 2,
  kColumns = 3,
  kLooseRows = 4,
  kWhole = 5
};

// What is laid out: nothing, or arguments that may be launched on any number of threads, or on one.
constexpr int64_t kNothing = 0, kAnyThreads = 1, kOneThread = 2;

// What a step says of one view that its kernel uses; see codegen/cpu/launch.py. The first is the
// space.
struct ViewWords {
  int64_t at, rank, slot, itemsize, mode;

  c10::IntArrayRef sizes(const Trace& trace) const {
    return {&trace.words[at] + 1, static_cast<size_t>(rank)};
  }
  c10::IntArrayRef strides(const Trace& trace) const {
    return {&trace.words[at] + 1 + rank, static_cast<size_t>(rank)};
  }
};

// A kernel's part of a step.
struct Launch {
  explicit Launch(Cursor cursor)
      : walk(static_cast<Walk>(cursor.next())),
        longest(cursor.next()),
        alone(cursor.next()),
        few(cursor.next()),
        reduced(static_cast<uint64_t>(cursor.next())) {
    const auto words = cursor.list(sizeof(ViewWords) / sizeof(int64_t));
    numbers = cursor.list();
    views = {reinterpret_cast<const ViewWords*>(words.data()),
             words.size() * sizeof(int64_t) / sizeof(ViewWords)};
    filled = const_cast<int64_t*>(cursor.at);  // a program serves one flush at a time
  }
  int64_t known_size() const { return filled[1]; }
  int64_t* known() const { return filled + 2; }
  int64_t* packed() const { return filled + 2 + known_size(); }

  // In the inner dimension, in bytes, as the code takes it to be.
  int64_t inner_step(const ViewWords& access) const {
    const bool rows = walk == Walk::kRows || walk == Walk::kLooseRows || walk == Walk::kWhole;
    const bool still = access.mode == kRow && rows;
    return access.mode == kScalar || access.mode == kRepeat || still ? 0 : access.itemsize;
  }

  Walk walk;
  int64_t longest;                 // row that it takes; elements
  int64_t alone;                   // and if there is no other
  int64_t few;                     // rows of fewer elements may be done side by side
  uint64_t reduced;                // dimensions of the space that make up a row, as bits
  c10::ArrayRef<ViewWords> views;  // the space, then each access
  c10::IntArrayRef numbers;
  int64_t* filled;  // what is laid out: kNothing, the arguments; less than 0: why none are
};

class Packer {
 public:
  static constexpr size_t kHeader = 3;  // words before the addresses

  Packer(const Trace& trace, const Launch& launch)
      : trace_(trace),
        launch_(launch),
        space_(launch.views[0]),
        accesses_(launch.views.data() + 1),
        count_(launch.views.size() - 1) {}

  // Whether the arguments that were laid out are for a row that eager cuts into parts, if there are
  // several threads.
  bool wants_one_thread(const int64_t* packed) const {
    const bool rows = launch_.walk == Walk::kRows || launch_.walk == Walk::kLooseRows;
    const int64_t total = packed[0], inner = packed[1];
    return rows && inner == total && total > launch_.alone;
  }

  // Lays the arguments out; addresses and numbers are left open.
  Refusal pack(int64_t* out) const {
    const auto sizes = space_.sizes(trace_);
    const int64_t total = c10::multiply_integers(sizes);
    if (launch_.walk == Walk::kLinear) {
      write(out, total, total, {}, nullptr);
      return Refusal::kFits;
    }
    const auto order = inner_first();
    if (launch_.walk == Walk::kWhole) {
      if (total == 0 || !fills(order) || !linear_lie_as_space()) return Refusal::kLayout;
      if (total > launch_.longest) return Refusal::kLong;
      write(out, total, total, {}, nullptr);
      return Refusal::kFits;
    }
    if (launch_.walk == Walk::kLooseRows) return pack_rows(reduced_first(), total, out);
    if (launch_.walk == Walk::kRows || launch_.walk == Walk::kColumns)
      return pack_rows(order, total, out);
    Dimensions rows = coalesce(order, 1);
    if (rows.empty() || !fits(rows[0])) {  // the inner dimension has one element, so it went away
      Dimension inner{1, {}};
      for (size_t a = 0; a < count_; ++a) inner.steps.push_back(launch_.inner_step(accesses_[a]));
      rows.insert(rows.begin(), std::move(inner));
    }
    write(out, total, rows[0].size, c10::ArrayRef<Dimension>(rows).slice(1), rows[0].steps.data());
    return Refusal::kFits;
  }

 private:
  struct Dimension {
    int64_t size;
    c10::SmallVector<int64_t, 12> steps;  // bytes, by access
  };
  using Dimensions = c10::SmallVector<Dimension, 4>;

  using Order = c10::SmallVector<size_t, 8>;

  // The dimensions of more than one element, innermost in memory first.
  Order inner_first() const {
    const auto sizes = space_.sizes(trace_), strides = space_.strides(trace_);
    Order order;
    for (size_t d = 0; d < sizes.size(); ++d)
      if (sizes[d] != 1) order.push_back(d);
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return strides[a] > strides[b]; });
    std::reverse(order.begin(), order.end());
    return order;
  }

  bool is_reduced(size_t dimension) const { return launch_.reduced >> dimension & 1; }

  // Dimensions, merged where all accesses allow it; `dense`: how many elements lie within them.
  Dimensions coalesce(c10::ArrayRef<size_t> order, int64_t dense) const {
    const auto sizes = space_.sizes(trace_);
    Dimensions rows;
    for (size_t d : order) {
      Dimension row{sizes[d], {}};
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

  // Reduced dimensions first, then the others: the space's order in memory is of no matter.
  Order reduced_first() const {
    const auto sizes = space_.sizes(trace_);
    Order order;
    for (const bool reduced : {true, false})
      for (size_t d = sizes.size(); d-- > 0;)
        if (sizes[d] != 1 && is_reduced(d) == reduced) order.push_back(d);
    return order;
  }

  // A row is all of the reduced dimensions, which must be the innermost of a space without gaps. So
  // must they be of what lies around columns; of fewer columns than make a vector, eager sums in
  // another order. See also plan/roles.py, which plans for what fits here.
  Refusal pack_rows(c10::ArrayRef<size_t> order, int64_t total, int64_t* out) const {
    constexpr int64_t kVector = 32;  // bytes
    constexpr int64_t kBlock = 32;   // columns that are done together: see codegen/cpu/driver.py
    constexpr int64_t kFewApart = 8;
    const bool loose = launch_.walk == Walk::kLooseRows;
    if ((!loose && !fills(order)) || !linear_lie_as_space()) return Refusal::kLayout;
    size_t begin = 0;
    if (launch_.walk == Walk::kColumns)
      while (begin < order.size() && !is_reduced(order[begin])) ++begin;
    // the results, too, must have them in one run: they are contiguous, so in the order of
    // dimensions
    for (size_t i = 1; i < begin; ++i)
      if (order[i] > order[i - 1]) return Refusal::kLayout;
    size_t end = begin;
    while (end < order.size() && is_reduced(order[end])) ++end;
    for (size_t i = end; i < order.size(); ++i)
      if (is_reduced(order[i])) return Refusal::kLayout;
    if (loose && end > 1) return Refusal::kLayout;         // in which order, only memory tells
    Dimensions rows = coalesce(order.slice(0, begin), 1);  // columns, if any
    if (rows.size() > 1) return Refusal::kLayout;
    const int64_t columns = rows.empty() ? 1 : rows[0].size;
    const Dimensions row = coalesce(order.slice(begin, end - begin), columns);
    if (total == 0 || row.size() != 1) return Refusal::kLayout;
    rows.push_back(row[0]);
    if (!fits(rows[0])) return Refusal::kLayout;
    if (launch_.walk == Walk::kColumns && columns * space_.itemsize < kVector)
      return Refusal::kLayout;
    if (row[0].size == total && launch_.alone == 0) return Refusal::kOneRow;
    if (row[0].size * std::min(columns, kBlock) > launch_.longest) return Refusal::kLong;
    Dimensions outer = coalesce(order.slice(end), columns * row[0].size);
    if (row[0].size < launch_.few) put_lanes_first(outer, row[0].size >= kFewApart);
    rows.append(outer.begin(), outer.end());
    write(out, total, rows[0].size, c10::ArrayRef<Dimension>(rows).slice(1), rows[0].steps.data());
    return Refusal::kFits;
  }

  // Rows are done side by side along the innermost of the dimensions around them, if that can be
  // (see codegen/cpu/panels.py): it becomes the longest one of those where it can be, if it is
  // short. Only where they are done so, which kLeast and kFewApart have to tell as driver.py does:
  // else rows of a block would not follow each other.
  void put_lanes_first(Dimensions& outer, bool all) const {
    constexpr int64_t kLong = 64, kLeast = 8;
    if (outer.empty() || outer[0].size >= kLong) return;
    size_t best = 0;
    for (size_t d = 1; d < outer.size(); ++d)
      if (outer[d].size > std::max(outer[best].size, kLeast - 1) && are_side_by_side(outer, d, all))
        best = d;
    std::rotate(outer.begin(), outer.begin() + static_cast<ptrdiff_t>(best),
                outer.begin() + static_cast<ptrdiff_t>(best) + 1);
  }

  // Whether accesses go along a dimension by one element, or not at all, or along no other: all of
  // them, or some if rows are very short.
  bool are_side_by_side(const Dimensions& outer, size_t dimension, bool all) const {
    bool some = false;
    for (size_t a = 0; a < count_; ++a) {
      const int64_t step = outer[dimension].steps[a];
      if (accesses_[a].mode == kScalar || accesses_[a].mode == kRow) continue;
      bool fits = step == 0 || step == accesses_[a].itemsize;
      if (!fits) {
        fits = true;
        for (size_t d = 0; d < outer.size(); ++d)
          if (d != dimension && outer[d].steps[a] != 0) fits = false;
      }
      if (all && !fits) return false;
      some |= fits;
    }
    return some;
  }

  // Whether the space's elements fill a stretch of memory, in this order of dimensions.
  bool fills(c10::ArrayRef<size_t> order) const {
    int64_t dense = 1;
    for (size_t d : order) {
      if (space_.strides(trace_)[d] != dense) return false;
      dense *= space_.sizes(trace_)[d];
    }
    return true;
  }

  // Whether one index serves all accesses that it should: that is recorded of pointwise ops only.
  bool linear_lie_as_space() const {
    for (size_t a = 0; a < count_; ++a)
      if (accesses_[a].mode == kLinear && !lies_as_space(accesses_[a])) return false;
    return true;
  }

  // Whether a view has the sizes and strides of the space.
  bool lies_as_space(const ViewWords& view) const {
    const auto sizes = space_.sizes(trace_), strides = space_.strides(trace_);
    if (view.sizes(trace_) != sizes) return false;
    for (size_t d = 0; d < sizes.size(); ++d)
      if (sizes[d] != 1 && view.strides(trace_)[d] != strides[d]) return false;
    return true;
  }

  int64_t step(const ViewWords& access, size_t dimension, int64_t dense) const {
    if (access.mode == kScalar) return 0;
    if (access.mode == kLinear) return dense * access.itemsize;
    const auto space = space_.sizes(trace_), sizes = access.sizes(trace_);
    const size_t missing = space.size() - sizes.size();
    size_t own = dimension - missing;
    if (access.mode == kRow) {
      if (is_reduced(dimension)) return 0;
      // the reduced dimensions are there, of one element each, or they are not
      const uint64_t outer = launch_.reduced & ((uint64_t{1} << dimension) - 1);
      own = missing == 0 ? dimension : dimension - static_cast<size_t>(std::popcount(outer));
    } else if (dimension < missing || (sizes[own] == 1 && space[dimension] != 1)) {
      return 0;
    }
    return access.strides(trace_)[own] * access.itemsize;
  }

  static bool extends(const Dimension& inner, const Dimension& outer) {
    for (size_t a = 0; a < inner.steps.size(); ++a)
      if (inner.steps[a] * inner.size != outer.steps[a]) return false;
    return true;
  }

  // Whether the code, which takes the modes at their word, is right for these inner steps.
  bool fits(const Dimension& inner) const {
    for (size_t a = 0; a < count_; ++a)
      if (accesses_[a].mode != kStrided && inner.steps[a] != launch_.inner_step(accesses_[a]))
        return false;
    return true;
  }

  void write(int64_t* out, int64_t total, int64_t inner, c10::ArrayRef<Dimension> outer,
             const int64_t* steps) const {
    *out++ = total;
    *out++ = inner;
    *out++ = static_cast<int64_t>(outer.size());
    out += count_;  // addresses
    for (size_t a = 0; a < count_; ++a)
      *out++ = steps ? steps[a] : launch_.inner_step(accesses_[a]);
    out += launch_.numbers.size();
    for (size_t i = outer.size(); i-- > 0;) *out++ = outer[i].size;
    for (size_t i = outer.size(); i-- > 0;)
      out = std::copy(outer[i].steps.begin(), outer[i].steps.end(), out);
  }

  const Trace& trace_;
  const Launch& launch_;
  const ViewWords& space_;
  const ViewWords* accesses_;
  size_t count_;
};

}  // namespace

Refusal prepare(const Trace& trace, Cursor cursor) {
  const Launch launch(cursor);
  bool same = *launch.filled != kNothing;
  const int64_t* at = launch.known();
  for (const ViewWords& view : launch.views) {
    if (!same) break;
    const int64_t* layout = &trace.words[view.at] + 1;
    same = std::equal(layout, layout + 2 * view.rank, at);
    at += 2 * view.rank;
  }
  if (!same) {
    int64_t* to = launch.known();
    for (const ViewWords& view : launch.views)
      to = std::copy_n(&trace.words[view.at] + 1, 2 * view.rank, to);
    const Packer packer(trace, launch);
    const auto refusal = packer.pack(launch.packed());
    if (refusal != Refusal::kFits) {
      *launch.filled = -static_cast<int64_t>(refusal);
    } else {
      *launch.filled = packer.wants_one_thread(launch.packed()) ? kOneThread : kAnyThreads;
    }
  }
  // asked each time: it may change while layouts stay
  if (*launch.filled == kOneThread && at::get_num_threads() > 1) return Refusal::kOneRow;
  return static_cast<Refusal>(std::max<int64_t>(-*launch.filled, 0));
}

void launch(const Trace& trace, Cursor cursor, int64_t kernel) {
  constexpr int64_t kSmall = 1 << 15;  // ATen's own grain size
  const Launch launch(cursor);
  int64_t* packed = launch.packed();
  int64_t* address = packed + Packer::kHeader;
  for (const ViewWords& view : launch.views.slice(1))
    *address++ = trace.addresses[view.slot] + trace.words[view.at] * view.itemsize;
  int64_t* number = address + launch.views.size() - 1;  // behind the steps
  for (int64_t index : launch.numbers) *number++ = trace.numbers[index];
  reinterpret_cast<void (*)(int64_t*, int32_t)>(kernel)(
      packed, packed[0] >= kSmall ? at::get_num_threads() : 1);
}

}  // namespace torchy
