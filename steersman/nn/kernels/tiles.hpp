// Tiles and chunks: what all recurrences with weights for their own state share.
//
// A tile is a few rows of the batch that go through time together: the recurrent product is a small dense
// multiplication whose accumulators stay in registers, then the gates are applied to the tile while it is in the
// nearest cache. Widths are padded to whole vectors inside; weights, gains and biases are 0 in padding, so that
// whatever finite stands there in a row counts for nothing. What is not finite stays in its row: a tile begins with
// clean ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "kernels.hpp"
#include "products.hpp"
#include "vectors.hpp"

namespace LEVEL {
namespace {

// From rows of `gates` runs of `width` floats to padded ones, and back.
void spread(const float *from, float *to, int64_t gates, int64_t width) {
  int64_t wide = padded(width);
  for (int64_t g = 0; g < gates; ++g) std::memcpy(to + g * wide, from + g * width, width * sizeof(float));
}

void gather(const float *from, float *to, int64_t gates, int64_t width) {
  int64_t wide = padded(width);
  for (int64_t g = 0; g < gates; ++g) std::memcpy(to + g * width, from + g * wide, width * sizeof(float));
}

Buffer spread_copy(const float *from, int64_t gates, int64_t width) {
  Buffer to(gates * padded(width));
  if (from) spread(from, to, gates, width);
  return to;
}

void clear(float *p, int64_t size) { std::memset(p, 0, size * sizeof(float)); }

void gather_added(const float *from, float *to, int64_t gates, int64_t width) {
  int64_t wide = padded(width);
  for (int64_t g = 0; g < gates; ++g)
    for (int64_t j = 0; j < width; ++j) to[g * width + j] += from[g * wide + j];
}

// Row `row` of a state's gradient from where the caller has it to a row of zeros, and back to there; null for none.
void take_row(const float *from, int64_t row, int64_t width, float *to) {
  if (from) std::memcpy(to, from + row * width, width * sizeof(float));
}

void give_row(const float *from, float *to, int64_t row, int64_t width) {
  if (to) std::memcpy(to + row * width, from, width * sizeof(float));
}

// 1 where a padded row holds something, 0 in its padding.
Buffer mask_of(int64_t gates, int64_t width) {
  Buffer mask(gates * padded(width));
  for (int64_t g = 0; g < gates; ++g) std::fill_n(mask + g * padded(width), width, 1.0f);
  return mask;
}

// What turns x into (x - mean) / sqrt(variance + epsilon), over `count` floats of `size`; 0 in padding.
struct Normal {
  Normal(const float *x, const float *mask, int64_t size, int64_t count, float epsilon)
      : mask(size == count ? nullptr : mask) {
    mean = all(summed(size, [&](int64_t j) { return load(x + j); }) / count);
    auto square = [&](int64_t j) {
      Floats d = less_mean(x, j);
      return d * d;
    };
    scale = 1.0f / std::sqrt(summed(size, square) / count + epsilon);
  }

  // In four sums that do not wait for one another.
  template <class At>
  static float summed(int64_t size, At at) {
    Floats sums[4] = {};
    int64_t j = 0;
    for (; j + 4 * WIDTH <= size; j += 4 * WIDTH)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sums[i] += at(j + i * WIDTH);
    for (; j < size; j += WIDTH) sums[0] += at(j);
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }

  Floats of(const float *x, int64_t j) const { return less_mean(x, j) * all(scale); }
  Floats less_mean(const float *x, int64_t j) const {
    Floats d = load(x + j) - mean;
    return mask ? d * load(mask + j) : d;
  }

  const float *mask;  // Null where there is no padding.
  Floats mean;
  float scale;
};

// The way back through a normalisation and a gain, a vector at a time: first what is summed up, then what is given.
struct Normalised {
  // `after` is the gradient of unit * gain; gives that of the unit, and adds to the gain's.
  Floats add(Floats after, Floats unit, const float *gain, float *dgain, int64_t j) {
    store(dgain + j, load(dgain + j) + after * unit);
    Floats d = after * load(gain + j);
    total += d, with += d * unit;
    return d;
  }
  void finish(int64_t count, float by) {
    mean = all(sum(total) / count), slope = all(sum(with) / count), scale = all(by);
  }
  Floats before(Floats d, Floats unit) const { return (d - mean - unit * slope) * scale; }

  Floats total{}, with{}, mean, slope, scale;
};

// Rows in tiles as even as can be: `work(rows, number)`.
template <class Work>
void in_tiles(const int64_t *rows, int64_t num_rows, Work work) {
  int64_t tiles = (num_rows + TILE - 1) / TILE, done = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    int64_t number = (num_rows - done + tiles - i - 1) / (tiles - i);
    work(rows + done, number);
    done += number;
  }
}

// How many of a tile's rows, longest first, go on beyond step t.
int64_t running(const int64_t *rows, int64_t number, const int64_t *lengths, int64_t t) {
  while (number > 0 && lengths[rows[number - 1]] <= t) --number;
  return number;
}

// A piece of time of a tile, as the rows of a matrix: step after step, in each the tile's rows.
struct Chunk {
  const int64_t *tile, *lengths;
  int64_t number, steps, from, to;

  int64_t rows() const { return number * (to - from); }
  // Where row i is in an array (batch, steps, ...), and whether it is no padding.
  int64_t at(int64_t i) const { return tile[i % number] * steps + from + i / number; }
  bool there(int64_t i) const { return from + i / number < lengths[tile[i % number]]; }
  // The row of step `t`, and how many rows go on beyond it.
  int64_t first(int64_t t) const { return (t - from) * number; }
  int64_t running(int64_t t) const { return LEVEL::running(tile, number, lengths, t); }
};

// A chunk's gates stay in the second cache; their rows do not all begin in the same set of the first.
int64_t apart(int64_t wide) { return wide + 16; }

constexpr int64_t CHUNK = 400000;
constexpr int64_t FAR = 1000000;  // Numbers kept that no near cache holds until the way back.

int64_t chunk_steps(int64_t wide, int64_t number) {
  return std::max<int64_t>(
      1, std::min<int64_t>(BLOCK, std::max<int64_t>(48, CHUNK / std::max<int64_t>(wide, 1))) / number);
}

// The most rows of a chunk.
int64_t chunk_rows(int64_t num_rows, int64_t steps) { return std::min(BLOCK, std::max<int64_t>(1, num_rows * steps)); }

// `work(chunk)` on a tile's chunks, from its beginning or from its end.
template <class Work>
void in_chunks(const int64_t *tile, int64_t number, const int64_t *lengths, int64_t steps, int64_t wide, bool back,
               Work work) {
  const int64_t longest = lengths[tile[0]], span = chunk_steps(wide, number), count = (longest + span - 1) / span;
  for (int64_t i = 0; i < count; ++i) {
    int64_t from = (back ? count - 1 - i : i) * span;
    Chunk chunk{tile, lengths, running(tile, number, lengths, from), steps, from, std::min(from + span, longest)};
    work(chunk);
  }
}

// W x + b of chunks, each gate padded.
template <class Number>
class Projection {
 public:
  Projection(const Inputs &given, int64_t gates, int64_t width, bool with_bias = true)
      : given_(given), wide_(gates * padded(width)), bias_(spread_copy(with_bias ? given.bias : nullptr, gates, width)),
        packed_(pack_transposed<Number>(given.weight, gates, width, given.features)) {}

  void run(const Chunk &chunk, float *out) const {
    auto row = [&](int64_t i) { return chunk.there(i) ? given_.x + chunk.at(i) * given_.features : nullptr; };
    packed_.multiply_rows(row, chunk.rows(), out, apart(wide_), {bias_, 0});
  }

 private:
  const Inputs &given_;
  int64_t wide_;
  Buffer bias_;
  Packed<Number> packed_;
};

// The gradient of a weight, summed up over chunks: where it belongs, or with padding beside it.
template <class Number>
class Gradient {
 public:
  Gradient(float *to, int64_t gates, int64_t width, int64_t columns)
      : to_(to), gates_(gates), width_(width), columns_(columns), wide_(padded(columns)),
        direct_(padded(width) == width && wide_ == columns), own_(direct_ ? 0 : gates * padded(width) * wide_),
        sums_(direct_ ? to : static_cast<float *>(own_)) {}

  // `x(i)` points at what belongs to row i of the left side; it may be null for padding, where that is nought.
  template <class Right>
  void add(const Outer<Number> &left, Right x) {
    left.add(gates_ * padded(width_), columns_, x, sums_, wide_, true);
  }

  void finish() const {
    for (int64_t g = 0; !direct_ && g < gates_; ++g)
      for (int64_t j = 0; j < width_; ++j) {
        const float *from = sums_ + (g * padded(width_) + j) * wide_;
        for (int64_t c = 0; c < columns_; ++c) to_[(g * width_ + j) * columns_ + c] += from[c];
      }
  }

 private:
  float *to_;
  int64_t gates_, width_, columns_, wide_;
  bool direct_;
  Buffer own_;
  float *sums_;
};

// What a chunk's gradients of the gates' sums give: those of the input and of its weights.
template <class Number>
class InputGradient {
 public:
  InputGradient(const Inputs &given, const InputGradients &to, int64_t gates, int64_t width, int64_t most)
      : given_(given), to_(to), wide_(gates * padded(width)), columns_(padded(given.features)),
        weight_(to.dweight, gates, width, given.features), dx_(to.dx ? most * columns_ : 0, false) {
    if (to.dx) packed_.reset(new Packed<Number>(pack<Number>(given.weight, gates, width, given.features)));
  }

  // Of a chunk's rows in `d`, and in `left` for products from the right.
  void add(const Chunk &chunk, const float *d, const Outer<Number> &left) {
    weight_.add(left, [&](int64_t i) { return chunk.there(i) ? given_.x + chunk.at(i) * given_.features : nullptr; });
    if (!packed_) return;
    packed_->multiply(d, apart(wide_), chunk.rows(), dx_, columns_);
    for (int64_t i = 0; i < chunk.rows(); ++i)
      if (chunk.there(i))
        std::memcpy(to_.dx + chunk.at(i) * given_.features, dx_ + i * columns_, given_.features * sizeof(float));
  }

  void finish(const int64_t *rows, int64_t num_rows, const int64_t *lengths, int64_t steps) const {
    weight_.finish();
    for (int64_t i = 0; i < num_rows && to_.dx; ++i) {
      int64_t from = rows[i] * steps + lengths[rows[i]], rest = steps - lengths[rows[i]];
      clear(to_.dx + from * given_.features, rest * given_.features);
    }
  }

 private:
  const Inputs &given_;
  const InputGradients &to_;
  int64_t wide_, columns_;
  Gradient<Number> weight_;
  Buffer dx_;
  std::unique_ptr<Packed<Number>> packed_;
};

// Fetches what was kept of the step before, which lies in memory where no one expects to go on: backwards.
template <class Kept>
void expect(const Kept *from, int64_t numbers) {
  constexpr int64_t line = 64 / sizeof(Kept);
  for (int64_t i = 0; i < numbers; i += line) __builtin_prefetch(from + i, 0, 2);
}

// The state before a chunk's row, or null in padding.
const float *before(const Chunk &chunk, int64_t i, const float *y, const float *h0, int64_t width) {
  if (!chunk.there(i)) return nullptr;
  return chunk.from + i / chunk.number ? y + (chunk.at(i) - 1) * width : h0 + chunk.tile[i % chunk.number] * width;
}

// Rows of a step that are over: no gradient comes from there.
void clear_ended(const Chunk &chunk, int64_t t, float *d, int64_t wide) {
  for (int64_t r = chunk.running(t); r < chunk.number; ++r) clear(d + (chunk.first(t) + r) * apart(wide), wide);
}

// What a row of no step gives: its state as it was, and outputs of 0.
void finish_row(float *y, float *last, const float *first, int64_t row, int64_t length, int64_t steps, int64_t width) {
  clear(y + (row * steps + length) * width, (steps - length) * width);
  if (length == 0) std::memcpy(last + row * width, first + row * width, width * sizeof(float));
}

}  // namespace
}  // namespace LEVEL
