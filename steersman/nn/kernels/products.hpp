// Dense products whose weights are packed once: small ones in a recurrence, and those of whole matrices.
//
// The innermost loop keeps a tile of rows by a panel of columns in registers. Numbers are floats, or pairs of bfloat16
// whose products are summed up in float32.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "kernels.hpp"
#include "vectors.hpp"

namespace LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int64_t TILE = 12;  // Rows: 12 x 2 sums, 2 weights and a broadcast fit into 32 registers.
#else
constexpr int64_t TILE = 6;
#endif
constexpr int64_t DEPTH = 128;  // Of a panel's piece that stays in the nearest cache, in units.
constexpr int64_t BLOCK = 384;  // Rows that go by all panels together: they stay in the second cache.

int64_t padded(int64_t size) { return (size + WIDTH - 1) / WIDTH * WIDTH; }

// Memory that begins on a cache line, zeroed where that is needed.
template <class Unit>
class Memory {
 public:
  explicit Memory(int64_t size, bool zeroed = true)
      : bytes_(std::max<int64_t>(size, 1) * sizeof(Unit)), data_(static_cast<Unit *>(take_memory(bytes_))) {
    if (zeroed) std::memset(data_, 0, bytes_);
  }
  Memory(Memory &&other) : bytes_(other.bytes_), data_(other.data_) { other.data_ = nullptr; }
  Memory &operator=(Memory &&other) {
    std::swap(bytes_, other.bytes_), std::swap(data_, other.data_);
    return *this;
  }
  ~Memory() { give_memory(data_, bytes_); }
  operator Unit *() const { return data_; }
  int64_t size() const { return bytes_ / sizeof(Unit); }

 private:
  size_t bytes_;
  Unit *data_;
};

using Buffer = Memory<float>;

// A square of WIDTH words on its side.
template <class Unit>
void transpose(const Unit *from, int64_t stride, Unit *to, int64_t apart) {
  static_assert(sizeof(Unit) == 4, "words");
  Ints rows[WIDTH], mixed[WIDTH];
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; ++i) std::memcpy(&rows[i], from + i * stride, sizeof(Ints));
  // A perfect shuffle of the rows, as often as a row can be halved.
#pragma GCC unroll 4
  for (int size = WIDTH; size > 1; size /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH / 2; ++i) {
      mixed[2 * i] = mixed_low(rows[i], rows[i + WIDTH / 2]);
      mixed[2 * i + 1] = mixed_high(rows[i], rows[i + WIDTH / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; ++i) rows[i] = mixed[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; ++i) std::memcpy(to + i * apart, &rows[i], sizeof(Ints));
}

// What is multiplied, in units that lie one after the other along the depth.

struct Whole {
  using Unit = float;
  using Kept = float;
  static void keep(Kept *to, Floats v) { store(to, v); }
  static void keep_far(Kept *to, Floats v) { store_far(to, v); }
  static Floats kept(const Kept *from) { return load(from); }
  static int64_t units(int64_t depth) { return depth; }
  static Floats multiplied(Floats sums, Unit a, const Unit *w) { return sums + all(a) * load(w); }
  // From rows of `columns` floats, either of which may be null for zeros.
  static void join(const float *row, const float *, int64_t columns, Unit *to) {
    if (!row) return void(std::memset(to, 0, columns * sizeof(float)));
    int64_t j = 0;  // Not by a call for every few numbers.
    for (; j + WIDTH <= columns; j += WIDTH) store(to + j, load(row + j));
    if (j < columns) std::memcpy(to + j, row + j, (columns - j) * sizeof(float));
  }
  // The same, where it need not be copied.
  static const Unit *joined(const float *row, const float *, int64_t, Unit *) { return row; }
};

// Two numbers of the depth in one word, in bfloat16: those at k and at k + units.
struct Half {
  using Unit = uint32_t;
  using Kept = uint16_t;  // What the way back needs is rounded, too: it is memory that takes the time.
  static void keep(Kept *to, Floats v) { store_halves(to, v); }
  static void keep_far(Kept *to, Floats v) { keep(to, v); }
  static Floats kept(const Kept *from) { return load_halves(from); }
  static int64_t units(int64_t depth) { return (depth + 1) / 2; }
  static Floats multiplied(Floats sums, Unit a, const Unit *w) { return added_pairs(sums, a, w); }
  static void join(const float *row, const float *other, int64_t columns, Unit *to) {
    int64_t j = 0;
    for (; j + WIDTH <= columns; j += WIDTH)
      store_pairs(to + j, row ? load(row + j) : Floats{}, other ? load(other + j) : Floats{});
    if (j < columns) {
      float rest[2][WIDTH] = {};
      Unit words[WIDTH];
      if (row) std::memcpy(rest[0], row + j, (columns - j) * sizeof(float));
      if (other) std::memcpy(rest[1], other + j, (columns - j) * sizeof(float));
      store_pairs(words, load(rest[0]), load(rest[1]));
      std::memcpy(to + j, words, (columns - j) * sizeof(Unit));
    }
  }
  static const Unit *joined(const float *row, const float *other, int64_t columns, Unit *to) {
    join(row, other, columns, to);
    return to;
  }
};

// What the sums of a product begin with: rows `apart` floats from one another, 0 for the same in all; null for zeros.
struct Begin {
  const float *row = nullptr;
  int64_t apart = 0;
};

// `depth` numbers that follow one another.
template <class Number>
void join_row(const float *row, int64_t depth, typename Number::Unit *to) {
  int64_t units = Number::units(depth), rest = depth - units;
  if (std::is_same<Number, Whole>::value || rest == units) return Number::join(row, row + units, units, to);
  Number::join(row, row + units, rest, to);
  Number::join(row + rest, nullptr, units - rest, to + rest);
}

// A matrix (depth, columns) in panels, [panel][unit][up to PANEL vectors], for products from the left.
template <class Number, int PANEL = 2, int HEIGHT = TILE>
class Packed {
 public:
  using Unit = typename Number::Unit;

  // From its columns: `column(n)` points at floats that follow one another, or is null in padding.
  template <class Column>
  static Packed by_columns(int64_t depth, int64_t columns, Column column) {
    Packed to(depth, columns, false);
    const int64_t units = to.units_;
    Memory<Unit> some(WIDTH * units, false);  // A vector's columns, so that what is written lies together.
    for (int64_t n = 0; n < columns; n += WIDTH) {
      int64_t panel = n / (PANEL * WIDTH), wide = to.wide(panel);
      Unit *out = to.data_ + panel * PANEL * WIDTH * units + n % (PANEL * WIDTH);
      for (int64_t i = 0; i < WIDTH; ++i) {
        if (const float *from = column(n + i)) join_row<Number>(from, depth, some + i * units);
        else std::memset(some + i * units, 0, units * sizeof(Unit));
      }
      int64_t k = 0;
      for (; k + WIDTH <= units; k += WIDTH) transpose(some + k, units, out + k * wide, wide);
      for (; k < units; ++k)
        for (int64_t i = 0; i < WIDTH; ++i) out[k * wide + i] = some[i * units + k];
    }
    return to;
  }

  // From its rows: `row(k)` points at `real` floats, or is null in padding.
  template <class Row>
  static Packed by_rows(int64_t depth, int64_t columns, int64_t real, Row row) {
    Packed to(depth, columns, real < columns);
    const int64_t units = to.units_;
    for (int64_t k = 0; k < units; ++k) {
      const float *from = row(k), *other = k + units < depth ? row(k + units) : nullptr;
      for (int64_t first = 0, panel = 0; first < real; first += PANEL * WIDTH, ++panel) {
        int64_t wide = to.wide(panel);
        Number::join(from ? from + first : from, other ? other + first : other, std::min(wide, real - first),
                     to.data_ + first * units + k * wide);
      }
    }
    return to;
  }

  // out (rows, columns) = begin + a (rows, depth) times this.
  void multiply(const float *a, int64_t stride, int64_t rows, float *out, int64_t so, Begin begin = {}) const {
    // A few rows, or such as stand apart, are multiplied where they are.
    if (std::is_same<Number, Whole>::value && (rows <= HEIGHT || (stride > depth_ && rows <= BLOCK)))
      return over_panels(reinterpret_cast<const Unit *>(a), stride, stride, 1, rows, out, so, begin);
    multiply_rows([=](int64_t i) { return a + i * stride; }, rows, out, so, begin);
  }

  // The same of rows wherever they are: `row(i)` points at one, or is null for zeros.
  template <class Row>
  void multiply_rows(Row row, int64_t rows, float *out, int64_t so, Begin begin = {}) const {
    // A block's rows lie together, and their beginnings not all in one set of the cache.
    const int64_t apart = (units_ + 15) / 16 * 16 + 16, most = std::max<int64_t>(HEIGHT, std::min(BLOCK, rows));
    if (block_.size() < most * apart) block_ = Memory<Unit>(most * apart, false);
    for (int64_t r = 0; r < rows; r += BLOCK) {
      int64_t number = std::min(BLOCK, rows - r);
      for (int64_t i = 0; i < number; ++i) {
        if (const float *from = row(r + i)) join_row<Number>(from, depth_, block_ + i * apart);
        else std::memset(block_ + i * apart, 0, units_ * sizeof(Unit));
      }
      over_panels(block_, apart, apart, 1, number, out + r * so, so,
                  {begin.row ? begin.row + r * begin.apart : nullptr, begin.apart});
    }
  }

  // The same where `a` is laid out in units and tiles, [tile][unit][HEIGHT].
  void multiply_tiles(const Unit *a, int64_t rows, float *out, int64_t so, Begin begin) const {
    over_panels(a, units_, 1, HEIGHT, rows, out, so, begin);
  }

 private:
  Packed(int64_t depth, int64_t columns, bool zeroed)
      : depth_(depth), units_(Number::units(depth)), vectors_(columns / WIDTH), data_(units_ * columns, zeroed) {}

  int64_t wide(int64_t panel) const { return std::min<int64_t>(PANEL, vectors_ - panel * PANEL) * WIDTH; }

  // Row r's tile begins at a + r * tile_stride; in it rows are `sa` apart, and units `next`.
  void over_panels(const Unit *a, int64_t tile_stride, int64_t sa, int64_t next, int64_t rows, float *out, int64_t so,
                   Begin begin) const {
    const int64_t pieces = rows <= HEIGHT ? 1 : std::max<int64_t>(1, (units_ + DEPTH - 1) / DEPTH);
    const int64_t panels = (vectors_ + PANEL - 1) / PANEL;
    // A single tile comes again soon: going by the panels to and fro finds the last ones still in the nearest cache.
    back_ = pieces == 1 && rows <= HEIGHT && !back_;
    for (int64_t i = 0; i < panels; ++i) {
      int64_t first = (back_ ? panels - 1 - i : i) * PANEL, wide = std::min<int64_t>(PANEL, vectors_ - first);
      const Unit *w = data_ + first * WIDTH * units_;
      for (int64_t piece = 0; piece < pieces; ++piece) {
        int64_t from = units_ * piece / pieces, to = units_ * (piece + 1) / pieces;
        const Begin sums = piece ? Begin{out, so} : begin;
        for (int64_t r = 0; r < rows; r += HEIGHT)
          panel(wide, a + r * tile_stride + from * next, sa, std::min<int64_t>(HEIGHT, rows - r),
                w + from * wide * WIDTH, to - from, out + r * so + first * WIDTH, so,
                {sums.row ? sums.row + r * sums.apart + first * WIDTH : nullptr, sums.apart}, next);
      }
    }
  }

  template <int V = PANEL>
  static void panel(int64_t wide, const Unit *a, int64_t sa, int64_t rows, const Unit *w, int64_t depth, float *out,
                    int64_t so, Begin begin, int64_t next) {
    if constexpr (V > 1)
      if (wide < V) return panel<V - 1>(wide, a, sa, rows, w, depth, out, so, begin, next);
    by_height<V, HEIGHT>(a, sa, rows, w, depth, out, so, begin, next);
  }

  template <int V, int R>
  static void by_height(const Unit *a, int64_t sa, int64_t rows, const Unit *w, int64_t depth, float *out, int64_t so,
                        Begin begin, int64_t next) {
    if constexpr (R > 1)
      if (rows < R) return by_height<V, R - 1>(a, sa, rows, w, depth, out, so, begin, next);
    product<R, V>(a, sa, w, depth, out, so, begin, next);
  }

  template <int R, int V>
  static void product(const Unit *a, int64_t sa, const Unit *w, int64_t depth, float *out, int64_t so, Begin begin,
                      int64_t next) {
    // Few rows leave the multipliers waiting for one another: then depths in turn are summed apart.
    constexpr int WAYS = R * V <= 2 ? 4 : R * V <= 8 ? 2 : 1;
    Floats sums[WAYS][R][V];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        sums[0][r][v] = begin.row ? load(begin.row + r * begin.apart + v * WIDTH) : Floats{};
#pragma GCC unroll 4
        for (int way = 1; way < WAYS; ++way) sums[way][r][v] = Floats{};
      }
    int64_t k = 0;
    for (; k + WAYS <= depth; k += WAYS)
#pragma GCC unroll 4
      for (int way = 0; way < WAYS; ++way)
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v)
            sums[way][r][v] =
                Number::multiplied(sums[way][r][v], a[r * sa + (k + way) * next], w + ((k + way) * V + v) * WIDTH);
    for (; k < depth; ++k)
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
          sums[0][r][v] = Number::multiplied(sums[0][r][v], a[r * sa + k * next], w + (k * V + v) * WIDTH);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
#pragma GCC unroll 4
        for (int way = 1; way < WAYS; ++way) sums[0][r][v] += sums[way][r][v];
        store(out + r * so + v * WIDTH, sums[0][r][v]);
      }
  }

  int64_t depth_, units_, vectors_;
  Memory<Unit> data_;
  mutable bool back_ = false;      // Which way it went last.
  mutable Memory<Unit> block_{0};  // Rows on their way into a product.
};

// (gates x width) rows of `matrix`, each gate padded, as columns: for h U^T.
template <class Number>
Packed<Number> pack_transposed(const float *matrix, int64_t gates, int64_t width, int64_t depth) {
  int64_t wide = padded(width);
  return Packed<Number>::by_columns(depth, gates * wide, [=](int64_t n) {
    int64_t gate = n / wide, j = n % wide;
    return j < width ? matrix + (gate * width + j) * depth : nullptr;
  });
}

// (gates x width, columns) as it stands, each gate padded: for dgates U.
template <class Number>
Packed<Number> pack(const float *matrix, int64_t gates, int64_t width, int64_t columns) {
  int64_t wide = padded(width);
  return Packed<Number>::by_rows(gates * wide, padded(columns), columns, [=](int64_t k) {
    int64_t gate = k / wide, j = k % wide;
    return j < width ? matrix + (gate * width + j) * columns : nullptr;
  });
}

// Products of whole matrices, for rows `from` to `to` of the result.

// Rows of a result, each padded to whole vectors: where they are summed up.
class Sums {
 public:
  Sums(float *out, int64_t rows, int64_t columns)
      : out_(out), rows_(rows), columns_(columns), direct_(padded(columns) == columns),
        own_(direct_ ? 0 : rows * padded(columns)), wide(padded(columns)),
        data(direct_ ? out : static_cast<float *>(own_)) {}

  // Puts them where they belong, where they were not summed up there already.
  void finish() const {
    for (int64_t r = 0; !direct_ && r < rows_; ++r)
      std::memcpy(out_ + r * columns_, data + r * wide, columns_ * sizeof(float));
  }

 private:
  float *out_;
  int64_t rows_, columns_;
  bool direct_;
  Buffer own_;

 public:
  const int64_t wide;
  float *const data;
};

// Rows of out (rows, columns) = a (rows, depth) b^T + bias; b (columns, depth).
template <class Number>
void multiply_transposed(const Product &p, int64_t from, int64_t to) {
  Sums sums(p.out + from * p.columns, to - from, p.columns);
  Buffer bias(p.bias ? sums.wide : 0);
  if (p.bias) std::memcpy(bias, p.bias, p.columns * sizeof(float));
  auto packed = Packed<Number>::by_columns(p.depth, sums.wide,
                                           [&](int64_t n) { return n < p.columns ? p.b + n * p.depth : nullptr; });
  packed.multiply(p.a + from * p.depth, p.depth, to - from, sums.data, sums.wide, p.bias ? Begin{bias, 0} : Begin{});
  sums.finish();
}

// Rows of out (rows, columns) = a (rows, depth) b; b (depth, columns).
template <class Number>
void multiply_plain(const Product &p, int64_t from, int64_t to) {
  Sums sums(p.out + from * p.columns, to - from, p.columns);
  auto packed = Packed<Number>::by_rows(p.depth, sums.wide, p.columns, [&](int64_t k) { return p.b + k * p.columns; });
  packed.multiply(p.a + from * p.depth, p.depth, to - from, sums.data, sums.wide);
  sums.finish();
}

// Rows of a sum of outer products over a long depth, a piece of it at a time.
template <class Number>
class Outer {
 public:
  using Unit = typename Number::Unit;
  static constexpr int64_t MOST = BLOCK;

  // Columns `from` to `to` of the left side's rows are the rows of the result; it is of no more than `most` depth at a
  // time.
  Outer(int64_t from, int64_t to, int64_t most = MOST)
      : from_(from), number_(to - from), line_(number_, false),
        turned_((number_ + TILE - 1) / TILE * TILE * most, false) {}

  // `row(k)` points at the left side's floats.
  template <class Row>
  void turn(int64_t depth, Row row) {
    depth_ = depth;
    const int64_t units = Number::units(depth);
    for (int64_t k = 0; k < units; ++k) {
      const float *a = row(k) + from_, *b = k + units < depth ? row(k + units) + from_ : nullptr;
      const Unit *line = Number::joined(a, b, number_, line_);
      int64_t r = 0;
      for (; r + TILE <= number_; r += TILE) std::memcpy(turned_ + r * units + k * TILE, line + r, TILE * sizeof(Unit));
      if (r < number_) std::memcpy(turned_ + r * units + k * TILE, line + r, (number_ - r) * sizeof(Unit));
    }
  }

  // Adds the products with the right side, whose `row(k)` points at `columns` floats, or is null for zeros; of the
  // first `number` rows of the result.
  template <class Row>
  void add(int64_t number, int64_t columns, Row row, float *sums, int64_t wide, bool begun) const {
    auto packed = Packed<Number>::by_rows(depth_, wide, columns, row);
    packed.multiply_tiles(turned_, number, sums, wide, {begun ? sums : nullptr, wide});
  }

 private:
  int64_t from_, number_, depth_ = 0;
  Memory<Unit> line_, turned_;
};

// Rows of out (rows, columns) = a^T b; a (depth, rows), b (depth, columns): a weight's gradient.
template <class Number>
void multiply_turned(const Product &p, int64_t from, int64_t to) {
  Outer<Number> outer(from, to);
  Sums sums(p.out + from * p.columns, to - from, p.columns);
  for (int64_t k = 0; k < p.depth; k += outer.MOST) {
    outer.turn(std::min(outer.MOST, p.depth - k), [&](int64_t i) { return p.a + (k + i) * p.rows; });
    outer.add(to - from, p.columns, [&](int64_t i) { return p.b + (k + i) * p.columns; }, sums.data, sums.wide, k > 0);
  }
  sums.finish();
}

}  // namespace
}  // namespace LEVEL
