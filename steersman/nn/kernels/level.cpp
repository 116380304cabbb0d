// The kernels, compiled once for each instruction set: LEVEL names it and the compiler's flags choose it.
//
// A tile is a few rows of the batch that go through time together: the recurrent product is a small dense
// multiplication whose accumulators stay in registers, then the gates are applied to the tile while it is in the
// nearest cache. Widths are padded to whole vectors inside; weights, gains and biases are 0 in padding, so that whatever
// finite stands there in a row counts for nothing. What is not finite stays in its row: a tile begins with clean ones.

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels.hpp"
#include "products.hpp"
#include "vectors.hpp"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

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
  Normal(const float *x, const float *mask, int64_t size, int64_t count, float epsilon) : mask(size == count ? nullptr : mask) {
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
  void finish(int64_t count, float by) { mean = all(sum(total) / count), slope = all(sum(with) / count), scale = all(by); }
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
  return std::max<int64_t>(1, std::min<int64_t>(BLOCK, std::max<int64_t>(48, CHUNK / std::max<int64_t>(wide, 1))) / number);
}

// The most rows of a chunk.
int64_t chunk_rows(int64_t num_rows, int64_t steps) { return std::min(BLOCK, std::max<int64_t>(1, num_rows * steps)); }

// `work(chunk)` on a tile's chunks, from its beginning or from its end.
template <class Work>
void in_chunks(const int64_t *tile, int64_t number, const int64_t *lengths, int64_t steps, int64_t wide, bool back, Work work) {
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
        direct_(padded(width) == width && wide_ == columns), own_(direct_ ? 0 : gates * padded(width) * wide_), sums_(direct_ ? to : static_cast<float *>(own_)) {}

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

// LSTM. Kept for each step: the cell, then the gates i f g o; with normalisation, in their place, U h and W x normalised,
// and the scales of both. What else the way back needs is quicker worked out again than fetched from memory.

int64_t lstm_kept(const Lstm &p) {
  int64_t wide = padded(p.hidden);
  return p.gain ? 9 * wide + WIDTH : 5 * wide;
}

// From a step's sums to its cell and output.
struct LstmGates {
  explicit LstmGates(const Lstm &p)
      : hidden(p.hidden), wide(padded(p.hidden)), peeps(p.peepholes), normal(p.gain), epsilon(p.epsilon),
        peep(spread_copy(p.peepholes, 3, p.hidden)), input_gain(spread_copy(p.input_gain, 4, p.hidden)),
        gain(spread_copy(p.gain, 4, p.hidden)), cell_gain(spread_copy(p.cell_gain, 1, p.hidden)),
        cell_bias(spread_copy(p.cell_bias, 1, p.hidden)), bias(spread_copy(p.inputs.bias, 4, p.hidden)),
        mask(mask_of(4, p.hidden)) {}

  // sums, W x, to the sum of W x and U h, each normalised.
  template <class Number>
  void normalised(float *sums, const float *product, typename Number::Kept *kept, bool far = false) const {
    const int64_t W = wide;
    float scales[WIDTH] = {};
    const Normal u(product, mask, 4 * W, 4 * hidden, epsilon), w(sums, mask, 4 * W, 4 * hidden, epsilon);
    scales[0] = u.scale, scales[1] = w.scale;
    for (int64_t j = 0; j < 4 * W; j += WIDTH) {
      Floats of_u = u.of(product, j), of_w = w.of(sums, j);
      if (kept && far) Number::keep_far(kept + W + j, of_u), Number::keep_far(kept + 5 * W + j, of_w);
      else if (kept) Number::keep(kept + W + j, of_u), Number::keep(kept + 5 * W + j, of_w);
      store(sums + j, gated(of_u, of_w, j));
    }
    if (kept) Number::keep(kept + 9 * W, load(scales));
  }

  // What a gate sees of U h and W x, both normalised.
  Floats gated(Floats u, Floats w, int64_t j) const { return w * load(input_gain + j) + load(bias + j) + u * load(gain + j); }

  // Takes the sums of i f g o and the cell, which becomes the new one; gives o tanh(cell).
  template <class Number>
  void apply(float *sums, float *cell, float *out, typename Number::Kept *kept) const {
    const int64_t W = wide;
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats before = load(cell + j);
      const Four now = gates(load(sums + j), load(sums + W + j), load(sums + 2 * W + j), load(sums + 3 * W + j), before, j);
      store(cell + j, now.cell);
      if (kept) Number::keep(kept + j, now.cell);
      if (normal) {
        store(sums + 3 * W + j, now.out);
        continue;
      }
      if (kept) {
        Number::keep(kept + W + j, now.in), Number::keep(kept + 2 * W + j, now.forget);
        Number::keep(kept + 3 * W + j, now.update), Number::keep(kept + 4 * W + j, now.out);
      }
      store(out + j, now.out * tanh(now.cell));
    }
    if (!normal) return;
    const Normal c(cell, mask, W, hidden, epsilon);
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats shown = c.of(cell, j) * load(cell_gain + j) + load(cell_bias + j);
      store(out + j, load(sums + 3 * W + j) * tanh(shown));
    }
  }

  struct Four {
    Floats in, forget, update, out, cell;
  };

  // The gates from their sums and the cell before; the new cell.
  __attribute__((always_inline)) Four gates(Floats in, Floats forget, Floats update, Floats out, Floats before, int64_t j) const {
    if (peeps) in += load(peep + j) * before, forget += load(peep + wide + j) * before;
    in = sigmoid(in), forget = sigmoid(forget), update = tanh(update);
    Floats cell = forget * before + in * update;
    if (peeps) out += load(peep + 2 * wide + j) * cell;
    return {in, forget, update, sigmoid(out), cell};
  }

  int64_t hidden, wide;
  bool peeps, normal;
  float epsilon;
  Buffer peep, input_gain, gain, cell_gain, cell_bias, bias, mask;
};

template <class Number>
void lstm_forward(const Lstm &p, const LstmForward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, P = p.out, T = p.steps, W = padded(H), S = lstm_kept(p), PW = padded(P), G = apart(4 * W);
  const bool normal = p.gain;
  Projection<Number> inputs(p.inputs, 4, H, !normal);
  auto recurrent = pack_transposed<Number>(p.recurrent, 4, H, P);
  std::unique_ptr<Packed<Number>> projection;
  if (p.projection) projection.reset(new Packed<Number>(pack_transposed<Number>(p.projection, 1, P, H)));
  LstmGates gates(p);
  Buffer h(TILE * PW), c(TILE * W), u(chunk_rows(num_rows, T) * G, false), v(normal ? TILE * G : 0), m(projection ? TILE * W : 0);
  auto *kept = static_cast<typename Number::Kept *>(to.kept);
  const bool far = num_rows * T * S > FAR && reinterpret_cast<uintptr_t>(kept) % 64 == 0;

  in_tiles(rows, num_rows, [&](const int64_t *tile, int64_t whole) {
    clear(h, TILE * PW), clear(c, TILE * W);
    for (int64_t r = 0; r < whole; ++r) {
      std::memcpy(h + r * PW, p.h0 + tile[r] * P, P * sizeof(float));
      std::memcpy(c + r * W, p.c0 + tile[r] * H, H * sizeof(float));
    }
    in_chunks(tile, whole, p.lengths, T, 4 * W, false, [&](const Chunk &chunk) {
      inputs.run(chunk, u);
      for (int64_t t = chunk.from; t < chunk.to; ++t) {
        const int64_t number = chunk.running(t);
        float *ut = u + chunk.first(t) * G;
        recurrent.multiply(h, PW, number, normal ? v : ut, G, {normal ? nullptr : ut, G});
        for (int64_t r = 0; r < number; ++r) {
          auto *own = kept ? kept + (tile[r] * T + t) * S : nullptr;
          if (normal) gates.template normalised<Number>(ut + r * G, v + r * G, own, far);
          gates.template apply<Number>(ut + r * G, c + r * W, projection ? m + r * W : h + r * PW, own);
        }
        if (projection) projection->multiply(m, W, number, h, PW);
        for (int64_t r = 0; r < number; ++r) {
          std::memcpy(to.y + (tile[r] * T + t) * P, h + r * PW, P * sizeof(float));
          if (t + 1 < p.lengths[tile[r]]) continue;
          std::memcpy(to.h + tile[r] * P, h + r * PW, P * sizeof(float));
          std::memcpy(to.c + tile[r] * H, c + r * W, H * sizeof(float));
        }
      }
    });
  });
  for (int64_t i = 0; i < num_rows; ++i) {
    int64_t row = rows[i], length = p.lengths[row];
    finish_row(to.y, to.h, p.h0, row, length, T, P);
    if (length == 0) std::memcpy(to.c + row * H, p.c0 + row * H, H * sizeof(float));
  }
  if (far) arrive();
}

template <class Number>
void lstm_backward(const Lstm &p, const LstmBackward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, P = p.out, T = p.steps, W = padded(H), S = lstm_kept(p), PW = padded(P), G = apart(4 * W);
  const int64_t most = chunk_rows(num_rows, T);
  const bool peeps = p.peepholes, normal = p.gain;
  auto recurrent = pack<Number>(p.recurrent, 4, H, P);
  std::unique_ptr<Packed<Number>> projection;
  std::unique_ptr<Gradient<Number>> dprojection;
  std::unique_ptr<Outer<Number>> turned_projection;
  if (p.projection) {
    projection.reset(new Packed<Number>(pack<Number>(p.projection, 1, P, H)));
    dprojection.reset(new Gradient<Number>(to.dprojection, 1, P, H));
    turned_projection.reset(new Outer<Number>(0, PW, most));
  }
  InputGradient<Number> inputs(p.inputs, to.inputs, 4, H, most);
  Gradient<Number> drecurrent(to.drecurrent, 4, H, P);
  Outer<Number> turned(0, 4 * W, most);
  const LstmGates weights(p);
  const Buffer &peep = weights.peep, &mask = weights.mask;
  const int64_t AP = apart(PW), AW = apart(W);
  Buffer start(TILE * W), dh(TILE * PW), dc(TILE * W), dm(TILE * W), dt(W), cell(W), bent(W), again(4 * W);
  Buffer d(most * G, false), e(normal ? most * G : 0, false), dp(projection ? most * AP : 0), cells(projection ? most * AW : 0);
  Buffer dbias(4 * W), dpeep(3 * W), dinput_gain(4 * W), dgain(4 * W), dcell_gain(W), dcell_bias(W);
  const auto *kept = static_cast<const typename Number::Kept *>(to.kept);

  in_tiles(rows, num_rows, [&](const int64_t *tile, int64_t whole) {
    clear(dh, TILE * PW), clear(dc, TILE * W);
    for (int64_t r = 0; r < whole; ++r) {
      take_row(to.dh, tile[r], P, dh + r * PW), take_row(to.dc, tile[r], H, dc + r * W);
      std::memcpy(start + r * W, p.c0 + tile[r] * H, H * sizeof(float));
    }
    in_chunks(tile, whole, p.lengths, T, normal ? 16 * W : 4 * W, true, [&](const Chunk &chunk) {
      for (int64_t t = chunk.to - 1; t >= chunk.from; --t) {
        const int64_t number = chunk.running(t), first = chunk.first(t);
        clear_ended(chunk, t, d, 4 * W);
        if (normal) clear_ended(chunk, t, e, 4 * W);
        if (projection) clear_ended(chunk, t, dp, PW);
        for (int64_t r = 0; r < number; ++r) {
          const float *given = to.dy + (tile[r] * T + t) * P;
          float *dr = dh + r * PW;
          for (int64_t j = 0; j < P; ++j) dr[j] += given[j];
          if (projection) std::memcpy(dp + (first + r) * AP, dr, PW * sizeof(float));
        }
        if (projection) projection->multiply(dh, PW, number, dm, W);
        for (int64_t r = 0; r < number; ++r) {
          const auto *own = kept + (tile[r] * T + t) * S, *past = own - S;
          float *dr = d + (first + r) * G, *dcr = dc + r * W, *dmr = projection ? dm + r * W : dh + r * PW;
          if (normal && t) expect(past, S);
          auto cell_before = [&](int64_t j) { return t ? Number::kept(past + j) : load(start + r * W + j); };
          if (normal) {
            // The gates again, and the output's tanh; then the gradient of the cell that goes through its normalisation.
            for (int64_t j = 0; j < W; j += WIDTH) store(cell + j, Number::kept(own + j));
            const Normal c(cell, mask, W, H, p.epsilon);
            Normalised through;
            for (int64_t j = 0; j < W; j += WIDTH) {
              auto seen = [&](int64_t at) { return weights.gated(Number::kept(own + W + at), Number::kept(own + 5 * W + at), at); };
              auto now = weights.gates(seen(j), seen(W + j), seen(2 * W + j), seen(3 * W + j), cell_before(j), j);
              store(again + j, now.in), store(again + W + j, now.forget), store(again + 2 * W + j, now.update), store(again + 3 * W + j, now.out);
              Floats unit = c.of(cell, j), shown = tanh(unit * load(weights.cell_gain + j) + load(weights.cell_bias + j));
              Floats after = load(dmr + j) * now.out * (1.0f - shown * shown);
              store(bent + j, shown);
              store(dcell_bias + j, load(dcell_bias + j) + after);
              store(dt + j, through.add(after, unit, weights.cell_gain, dcell_gain, j));
            }
            through.finish(H, c.scale);
            for (int64_t j = 0; j < W; j += WIDTH) store(dt + j, through.before(load(dt + j), c.of(cell, j)));
          }
          Normalised of_u, of_w;
          for (int64_t j = 0; j < W; j += WIDTH) {
            auto gate = [&](int64_t at) { return normal ? load(again + at) : Number::kept(own + W + at); };
            Floats in = gate(j), forget = gate(W + j), update = gate(2 * W + j), out = gate(3 * W + j);
            Floats now = Number::kept(own + j), shown = normal ? load(bent + j) : tanh(now), grad = load(dmr + j);
            Floats before = cell_before(j);
            if (projection) store(cells + (first + r) * AW + j, out * shown);
            Floats dout = grad * shown * out * (1.0f - out);
            Floats total = load(dcr + j) + (normal ? load(dt + j) : grad * out * (1.0f - shown * shown));
            if (peeps) {
              total += dout * load(peep + 2 * W + j);
              store(dpeep + 2 * W + j, load(dpeep + 2 * W + j) + dout * now);
            }
            Floats din = total * update * in * (1.0f - in), dforget = total * before * forget * (1.0f - forget);
            Floats dupdate = total * in * (1.0f - update * update);
            auto give = [&](int64_t at, Floats grad) {
              store(dbias + at, load(dbias + at) + grad);
              if (!normal) return store(dr + at, grad);
              store(e + (first + r) * G + at, of_u.add(grad, Number::kept(own + W + at), weights.gain, dgain, at));
              store(dr + at, of_w.add(grad, Number::kept(own + 5 * W + at), weights.input_gain, dinput_gain, at));
            };
            give(j, din), give(W + j, dforget), give(2 * W + j, dupdate), give(3 * W + j, dout);
            total *= forget;
            if (peeps) {
              total += din * load(peep + j) + dforget * load(peep + W + j);
              store(dpeep + j, load(dpeep + j) + din * before);
              store(dpeep + W + j, load(dpeep + W + j) + dforget * before);
            }
            store(dcr + j, total);
          }
          if (!normal) continue;
          float scales[WIDTH];
          store(scales, Number::kept(own + 9 * W));
          of_u.finish(4 * H, scales[0]), of_w.finish(4 * H, scales[1]);
          float *er = e + (first + r) * G;
          for (int64_t j = 0; j < 4 * W; j += WIDTH) {
            store(er + j, of_u.before(load(er + j), Number::kept(own + W + j)));
            store(dr + j, of_w.before(load(dr + j), Number::kept(own + 5 * W + j)));
          }
        }
        recurrent.multiply((normal ? e : d) + first * G, G, number, dh, PW);
      }
      turned.turn(chunk.rows(), [&](int64_t i) { return d + i * G; });
      inputs.add(chunk, d, turned);
      if (normal) turned.turn(chunk.rows(), [&](int64_t i) { return e + i * G; });
      drecurrent.add(turned, [&](int64_t i) { return before(chunk, i, to.y, p.h0, P); });
      if (!projection) return;
      turned_projection->turn(chunk.rows(), [&](int64_t i) { return dp + i * AP; });
      dprojection->add(*turned_projection, [&](int64_t i) { return chunk.there(i) ? cells + i * AW : nullptr; });
    });
    for (int64_t r = 0; r < whole; ++r) {
      give_row(dh + r * PW, to.dh0, tile[r], P), give_row(dc + r * W, to.dc0, tile[r], H);
    }
  });
  inputs.finish(rows, num_rows, p.lengths, T);
  drecurrent.finish();
  gather_added(dbias, to.inputs.dbias, 4, H);
  if (projection) dprojection->finish();
  if (peeps) gather_added(dpeep, to.dpeepholes, 3, H);
  if (!normal) return;
  gather_added(dinput_gain, to.dinput_gain, 4, H), gather_added(dgain, to.dgain, 4, H);
  gather_added(dcell_gain, to.dcell_gain, 1, H), gather_added(dcell_bias, to.dcell_bias, 1, H);
}

// GRU. Kept for each step: r z n, and U h + b of n (reset after) or r h (reset before).

int64_t gru_kept(const Gru &p) { return 4 * padded(p.hidden); }

template <class Number>
void gru_forward(const Gru &p, const GruForward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps, W = padded(H), S = gru_kept(p), G = apart(3 * W);
  const bool after = p.reset_after;
  Projection<Number> inputs(p.inputs, 3, H);
  auto recurrent = pack_transposed<Number>(p.recurrent, after ? 3 : 2, H, H);
  std::unique_ptr<Packed<Number>> candidate;
  if (!after) candidate.reset(new Packed<Number>(pack_transposed<Number>(p.recurrent + 2 * H * H, 1, H, H)));
  Buffer bias = spread_copy(p.bias, 3, H), h(TILE * W), x(chunk_rows(num_rows, T) * G, false), u(TILE * G), rh(TILE * W);
  auto *kept = static_cast<typename Number::Kept *>(to.kept);

  in_tiles(rows, num_rows, [&](const int64_t *tile, int64_t whole) {
    clear(h, TILE * W);
    for (int64_t r = 0; r < whole; ++r) std::memcpy(h + r * W, p.h0 + tile[r] * H, H * sizeof(float));
    in_chunks(tile, whole, p.lengths, T, 3 * W, false, [&](const Chunk &chunk) {
      inputs.run(chunk, x);
      for (int64_t t = chunk.from; t < chunk.to; ++t) {
        const int64_t number = chunk.running(t);
        recurrent.multiply(h, W, number, u, G, {bias, 0});
        for (int64_t r = 0; r < number; ++r) {
          auto *own = kept ? kept + (tile[r] * T + t) * S : nullptr;
          float *xr = x + (chunk.first(t) + r) * G, *ur = u + r * G, *hr = h + r * W;
          for (int64_t j = 0; j < W; j += WIDTH) {
            Floats reset = sigmoid(load(xr + j) + load(ur + j)), keep = sigmoid(load(xr + W + j) + load(ur + W + j));
            if (own) Number::keep(own + j, reset), Number::keep(own + W + j, keep);
            Floats before = load(hr + j);
            if (after) {
              Floats product = load(ur + 2 * W + j), fresh = tanh(load(xr + 2 * W + j) + reset * product);
              if (own) Number::keep(own + 2 * W + j, fresh), Number::keep(own + 3 * W + j, product);
              store(hr + j, fresh + keep * (before - fresh));
            } else {
              if (own) Number::keep(own + 3 * W + j, reset * before);
              store(rh + r * W + j, reset * before), store(ur + j, keep);
            }
          }
        }
        if (!after) {
          candidate->multiply(rh, W, number, u + 2 * W, G, {bias + 2 * W, 0});
          for (int64_t r = 0; r < number; ++r) {
            auto *own = kept ? kept + (tile[r] * T + t) * S : nullptr;
            float *xr = x + (chunk.first(t) + r) * G, *ur = u + r * G, *hr = h + r * W;
            for (int64_t j = 0; j < W; j += WIDTH) {
              Floats fresh = tanh(load(xr + 2 * W + j) + load(ur + 2 * W + j)), keep = load(ur + j);
              if (own) Number::keep(own + 2 * W + j, fresh);
              store(hr + j, fresh + keep * (load(hr + j) - fresh));
            }
          }
        }
        for (int64_t r = 0; r < number; ++r) {
          std::memcpy(to.y + (tile[r] * T + t) * H, h + r * W, H * sizeof(float));
          if (t + 1 == p.lengths[tile[r]]) std::memcpy(to.h + tile[r] * H, h + r * W, H * sizeof(float));
        }
      }
    });
  });
  for (int64_t i = 0; i < num_rows; ++i) finish_row(to.y, to.h, p.h0, rows[i], p.lengths[rows[i]], T, H);
}

template <class Number>
void gru_backward(const Gru &p, const GruBackward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps, W = padded(H), S = gru_kept(p), G = apart(3 * W);
  const int64_t most = chunk_rows(num_rows, T);
  const bool after = p.reset_after;
  auto recurrent = pack<Number>(p.recurrent, after ? 3 : 2, H, H);
  std::unique_ptr<Packed<Number>> candidate;
  if (!after) candidate.reset(new Packed<Number>(pack<Number>(p.recurrent + 2 * H * H, 1, H, H)));
  InputGradient<Number> inputs(p.inputs, to.inputs, 3, H, most);
  // Of r and z both sides' gradients are the same; n's of U h, or of U (r h), is its own.
  Gradient<Number> drecurrent(to.drecurrent, 2, H, H), dcandidate(to.drecurrent + 2 * H * H, 1, H, H);
  Outer<Number> turned(0, 3 * W, most), turned_candidate(2 * W, 3 * W, most);
  // Of the sums with W x, and with U h; r h where it is multiplied.
  Buffer d(most * G, false), du(most * G, false), rh(after ? 0 : most * apart(W));
  Buffer dh(TILE * W), drh(TILE * W), past(W), dbias(3 * W), dproduct(3 * W);
  const auto *kept = static_cast<const typename Number::Kept *>(to.kept);

  in_tiles(rows, num_rows, [&](const int64_t *tile, int64_t whole) {
    clear(dh, TILE * W);
    for (int64_t r = 0; r < whole; ++r) take_row(to.dh, tile[r], H, dh + r * W);
    in_chunks(tile, whole, p.lengths, T, 3 * W, true, [&](const Chunk &chunk) {
      for (int64_t t = chunk.to - 1; t >= chunk.from; --t) {
        const int64_t number = chunk.running(t), first = chunk.first(t);
        clear_ended(chunk, t, d, 3 * W), clear_ended(chunk, t, du, 3 * W);
        for (int64_t r = 0; r < number; ++r) {
          const int64_t at = tile[r] * T + t;
          const auto *own = kept + at * S;
          const float *given = to.dy + at * H;
          if (t) expect(own - S, S);
          std::memcpy(past, t ? to.y + (at - 1) * H : p.h0 + tile[r] * H, H * sizeof(float));
          float *dhr = dh + r * W, *dr = d + (first + r) * G, *dur = du + (first + r) * G;
          for (int64_t j = 0; j < H; ++j) dhr[j] += given[j];
          for (int64_t j = 0; j < W; j += WIDTH) {
            Floats reset = Number::kept(own + j), keep = Number::kept(own + W + j), fresh = Number::kept(own + 2 * W + j);
            Floats other = Number::kept(own + 3 * W + j), grad = load(dhr + j);
            Floats dfresh = grad * (1.0f - keep) * (1.0f - fresh * fresh);
            Floats dkeep = grad * (load(past + j) - fresh) * keep * (1.0f - keep);
            store(dr + 2 * W + j, dfresh), store(dr + W + j, dkeep), store(dur + W + j, dkeep);
            store(dbias + 2 * W + j, load(dbias + 2 * W + j) + dfresh), store(dbias + W + j, load(dbias + W + j) + dkeep);
            store(dhr + j, grad * keep);
            Floats dproduct_fresh = after ? dfresh * reset : dfresh;
            store(dur + 2 * W + j, dproduct_fresh);
            store(dproduct + 2 * W + j, load(dproduct + 2 * W + j) + dproduct_fresh);
            if (after) {
              Floats dreset = dfresh * other * reset * (1.0f - reset);
              store(dr + j, dreset), store(dur + j, dreset), store(dbias + j, load(dbias + j) + dreset);
            }
          }
        }
        if (!after) {
          candidate->multiply(d + first * G + 2 * W, G, number, drh, W);
          for (int64_t r = 0; r < number; ++r) {
            const int64_t at = tile[r] * T + t;
            const auto *own = kept + at * S;
            std::memcpy(past, t ? to.y + (at - 1) * H : p.h0 + tile[r] * H, H * sizeof(float));
            float *dhr = dh + r * W, *dr = d + (first + r) * G, *dur = du + (first + r) * G;
            for (int64_t j = 0; j < W; j += WIDTH) {
              Floats reset = Number::kept(own + j), grad = load(drh + r * W + j);
              Floats dreset = grad * load(past + j) * reset * (1.0f - reset);
              store(dr + j, dreset), store(dur + j, dreset), store(dbias + j, load(dbias + j) + dreset);
              store(dhr + j, load(dhr + j) + grad * reset);
              store(rh + (first + r) * apart(W) + j, Number::kept(own + 3 * W + j));
            }
          }
        }
        recurrent.multiply(du + first * G, G, number, dh, W, {dh, W});
      }
      auto state = [&](int64_t i) { return before(chunk, i, to.y, p.h0, H); };
      turned.turn(chunk.rows(), [&](int64_t i) { return d + i * G; });
      inputs.add(chunk, d, turned);
      drecurrent.add(turned, state);
      turned_candidate.turn(chunk.rows(), [&](int64_t i) { return du + i * G; });
      if (after) dcandidate.add(turned_candidate, state);
      else dcandidate.add(turned_candidate, [&](int64_t i) { return chunk.there(i) ? rh + i * apart(W) : nullptr; });
    });
    for (int64_t r = 0; r < whole; ++r) give_row(dh + r * W, to.dh0, tile[r], H);
  });
  for (int64_t j = 0; j < 2 * W; ++j) dproduct[j] = dbias[j];
  inputs.finish(rows, num_rows, p.lengths, T);
  drecurrent.finish();
  dcandidate.finish();
  gather_added(dbias, to.inputs.dbias, 3, H), gather_added(dproduct, to.dbias, 3, H);
}

// Plain RNN: all that the way back needs is y.

template <class Number>
void rnn_forward(const Rnn &p, const RnnForward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps, W = padded(H), G = apart(W);
  Projection<Number> inputs(p.inputs, 1, H);
  auto recurrent = pack_transposed<Number>(p.recurrent, 1, H, H);
  Buffer h(TILE * W), u(chunk_rows(num_rows, T) * G, false);
  in_tiles(rows, num_rows, [&](const int64_t *tile, int64_t whole) {
    clear(h, TILE * W);
    for (int64_t r = 0; r < whole; ++r) std::memcpy(h + r * W, p.h0 + tile[r] * H, H * sizeof(float));
    in_chunks(tile, whole, p.lengths, T, W, false, [&](const Chunk &chunk) {
      inputs.run(chunk, u);
      for (int64_t t = chunk.from; t < chunk.to; ++t) {
        const int64_t number = chunk.running(t);
        float *ut = u + chunk.first(t) * G;
        recurrent.multiply(h, W, number, ut, G, {ut, G});
        for (int64_t r = 0; r < number; ++r) {
          for (int64_t j = 0; j < W; j += WIDTH) {
            Floats x = load(ut + r * G + j);
            store(h + r * W + j, p.relu ? (x > 0.0f ? x : (x == x ? Floats{} : x)) : tanh(x));
          }
          std::memcpy(to.y + (tile[r] * T + t) * H, h + r * W, H * sizeof(float));
          if (t + 1 == p.lengths[tile[r]]) std::memcpy(to.h + tile[r] * H, h + r * W, H * sizeof(float));
        }
      }
    });
  });
  for (int64_t i = 0; i < num_rows; ++i) finish_row(to.y, to.h, p.h0, rows[i], p.lengths[rows[i]], T, H);
}

template <class Number>
void rnn_backward(const Rnn &p, const RnnBackward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps, W = padded(H), G = apart(W), most = chunk_rows(num_rows, T);
  auto recurrent = pack<Number>(p.recurrent, 1, H, H);
  InputGradient<Number> inputs(p.inputs, to.inputs, 1, H, most);
  Gradient<Number> drecurrent(to.drecurrent, 1, H, H);
  Outer<Number> turned(0, W, most);
  Buffer dh(TILE * W), d(most * G, false), now(W), dbias(W);
  in_tiles(rows, num_rows, [&](const int64_t *tile, int64_t whole) {
    clear(dh, TILE * W);
    for (int64_t r = 0; r < whole; ++r) take_row(to.dh, tile[r], H, dh + r * W);
    in_chunks(tile, whole, p.lengths, T, W, true, [&](const Chunk &chunk) {
      for (int64_t t = chunk.to - 1; t >= chunk.from; --t) {
        const int64_t number = chunk.running(t), first = chunk.first(t);
        clear_ended(chunk, t, d, W);
        for (int64_t r = 0; r < number; ++r) {
          const int64_t at = (tile[r] * T + t) * H;
          std::memcpy(now, to.y + at, H * sizeof(float));
          float *dhr = dh + r * W, *dr = d + (first + r) * G;
          for (int64_t j = 0; j < H; ++j) dhr[j] += to.dy[at + j];
          for (int64_t j = 0; j < W; j += WIDTH) {
            Floats h = load(now + j);
            Floats grad = p.relu ? (h > 0.0f ? load(dhr + j) : Floats{}) : load(dhr + j) * (1.0f - h * h);
            store(dr + j, grad), store(dbias + j, load(dbias + j) + grad);
          }
        }
        recurrent.multiply(d + first * G, G, number, dh, W);
      }
      turned.turn(chunk.rows(), [&](int64_t i) { return d + i * G; });
      inputs.add(chunk, d, turned);
      drecurrent.add(turned, [&](int64_t i) { return before(chunk, i, to.y, p.h0, H); });
    });
    for (int64_t r = 0; r < whole; ++r) give_row(dh + r * W, to.dh0, tile[r], H);
  });
  inputs.finish(rows, num_rows, p.lengths, T);
  drecurrent.finish();
  gather_added(dbias, to.inputs.dbias, 1, H);
}

// Linear recurrences.

Floats part(const float *p, int64_t left) {
  Floats v{};
  std::memcpy(&v, p, std::min<int64_t>(WIDTH, left) * sizeof(float));
  return v;
}

void put(float *p, Floats v, int64_t left) { std::memcpy(p, &v, std::min<int64_t>(WIDTH, left) * sizeof(float)); }

// g of minGRU: x + 1/2 above nought, sigmoid(x) below: positive, so that its logarithm exists.
Floats positive(Floats x) { return x >= 0.0f ? x + 0.5f : sigmoid(x); }

template <bool GATED, bool WHOLE>
void scan_column(const Scan &p, int64_t row, int64_t j, float *y, float *h_last) {
  const int64_t H = p.hidden, left = H - j;
  Floats h = part(p.h0 + row * H + j, left);
  int64_t at = row * p.steps * H + j;
  for (int64_t t = 0; t < p.lengths[row]; ++t, at += H) {
    Floats a = WHOLE ? load(p.a + at) : part(p.a + at, left), b = WHOLE ? load(p.b + at) : part(p.b + at, left);
    if (GATED) {
      Floats z = sigmoid(a), g = positive(b);
      h = h + z * (g - h);
    } else {
      h = a * h + b;
    }
    if (WHOLE) store(y + at, h);
    else put(y + at, h, left);
  }
  put(h_last + row * H + j, h, left);
}

void scan_forward(const Scan &p, float *y, float *h_last, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden;
  for (int64_t i = 0; i < num_rows; ++i) {
    int64_t row = rows[i], length = p.lengths[row];
    for (int64_t j = 0; j < H; j += WIDTH) {
      bool whole = H - j >= WIDTH;
      if (p.gated) whole ? scan_column<true, true>(p, row, j, y, h_last) : scan_column<true, false>(p, row, j, y, h_last);
      else whole ? scan_column<false, true>(p, row, j, y, h_last) : scan_column<false, false>(p, row, j, y, h_last);
    }
    clear(y + (row * p.steps + length) * H, (p.steps - length) * H);
  }
}

void scan_backward(const Scan &p, const float *y, const float *dy, const float *dh_last, float *da, float *db,
                   float *dh0, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps;
  for (int64_t i = 0; i < num_rows; ++i) {
    int64_t row = rows[i], length = p.lengths[row];
    for (int64_t j = 0; j < H; j += WIDTH) {
      int64_t left = H - j;
      Floats d = dh_last ? part(dh_last + row * H + j, left) : Floats{};
      for (int64_t t = length - 1; t >= 0; --t) {
        int64_t at = (row * T + t) * H + j;
        d += part(dy + at, left);
        Floats before = t ? part(y + at - H, left) : part(p.h0 + row * H + j, left);
        Floats a = part(p.a + at, left);
        if (p.gated) {
          Floats x = part(p.b + at, left), z = sigmoid(a), low = sigmoid(x), g = x >= 0.0f ? x + 0.5f : low;
          put(da + at, d * (g - before) * z * (1.0f - z), left);
          put(db + at, d * z * (x >= 0.0f ? all(1.0f) : low * (1.0f - low)), left);
          d = d * (1.0f - z);
        } else {
          put(da + at, d * before, left);
          put(db + at, d, left);
          d = d * a;
        }
      }
      if (dh0) put(dh0 + row * H + j, d, left);
    }
    clear(da + (row * T + length) * H, (T - length) * H);
    clear(db + (row * T + length) * H, (T - length) * H);
  }
}

void rotate_forward(const Rotation &p, float *y, float *h_last, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden;
  for (int64_t i = 0; i < num_rows; ++i) {
    int64_t row = rows[i], length = p.lengths[row];
    for (int64_t j = 0; j < H; j += WIDTH) {
      int64_t left = H - j, end = row * 2 * H + j;
      Floats real = part(p.factor + j, left), imaginary = part(p.factor + H + j, left);
      Floats a = part(p.h0 + end, left), b = part(p.h0 + end + H, left);
      for (int64_t t = 0; t < length; ++t) {
        int64_t at = (row * p.steps + t) * 2 * H + j;
        Floats turned = real * a - imaginary * b + part(p.inputs + at, left);
        b = real * b + imaginary * a + part(p.inputs + at + H, left);
        a = turned;
        put(y + at, a, left), put(y + at + H, b, left);
      }
      put(h_last + end, a, left), put(h_last + end + H, b, left);
    }
    clear(y + (row * p.steps + length) * 2 * H, (p.steps - length) * 2 * H);
  }
}

void rotate_backward(const Rotation &p, const float *y, const float *dy, const float *dh_last, float *dinputs,
                     float *dh0, float *dfactor, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps;
  for (int64_t i = 0; i < num_rows; ++i) {
    int64_t row = rows[i], length = p.lengths[row];
    for (int64_t j = 0; j < H; j += WIDTH) {
      int64_t left = H - j, end = row * 2 * H + j;
      Floats real = part(p.factor + j, left), imaginary = part(p.factor + H + j, left);
      Floats da{}, db{}, dreal{}, dimaginary{};
      if (dh_last) da = part(dh_last + end, left), db = part(dh_last + end + H, left);
      for (int64_t t = length - 1; t >= 0; --t) {
        int64_t at = (row * T + t) * 2 * H + j;
        da += part(dy + at, left), db += part(dy + at + H, left);
        const float *before = t ? y + at - 2 * H : p.h0 + end;
        Floats a = part(before, left), b = part(before + H, left);
        dreal += da * a + db * b, dimaginary += db * a - da * b;
        put(dinputs + at, da, left), put(dinputs + at + H, db, left);
        Floats turned = real * da + imaginary * db;
        db = real * db - imaginary * da;
        da = turned;
      }
      if (dh0) put(dh0 + end, da, left), put(dh0 + end + H, db, left);
      put(dfactor + j, part(dfactor + j, left) + dreal, left);
      put(dfactor + H + j, part(dfactor + H + j, left) + dimaginary, left);
    }
    clear(dinputs + (row * T + length) * 2 * H, (T - length) * 2 * H);
  }
}

// One step of one sequence, weights packed once: [input and state][gates], in float32 or in bfloat16.

constexpr int64_t HALF_PANEL = 4;  // Vectors of columns in a panel.

// Weights in bfloat16, two vectors to a word: a shift and a mask give them back as floats.
class PackedHalf {
 public:
  template <class At>
  PackedHalf(int64_t depth, int64_t columns, At at)
      : depth_(depth), vectors_(columns / WIDTH), data_(depth * ((vectors_ + 1) / 2) * WIDTH) {
    uint32_t *out = reinterpret_cast<uint32_t *>(static_cast<float *>(data_));
    for (int64_t first = 0; first < vectors_; first += HALF_PANEL) {
      int64_t wide = std::min(HALF_PANEL, vectors_ - first);
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t v = 0; v < wide; v += 2)
          for (int64_t n = 0; n < WIDTH; ++n) {
            uint32_t low = rounded(at(k, (first + v) * WIDTH + n));
            uint32_t high = v + 1 < wide ? rounded(at(k, (first + v + 1) * WIDTH + n)) : 0;
            *out++ = low | high << 16;
          }
    }
  }

  void multiply(const float *a, float *out) const {
    const float *w = data_;
    for (int64_t first = 0; first < vectors_; first += HALF_PANEL) {
      int64_t wide = std::min(HALF_PANEL, vectors_ - first);
      float *o = out + first * WIDTH;
      switch (wide) {
        case 4: product<4>(a, w, o); break;
        case 3: product<3>(a, w, o); break;
        case 2: product<2>(a, w, o); break;
        default: product<1>(a, w, o);
      }
      w += (wide + 1) / 2 * WIDTH * depth_;
    }
  }

 private:
  // To the nearest, ties to even; NaN stays NaN.
  static uint32_t rounded(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    if (value != value) return (word >> 16) | 0x40;
    return (word + 0x7fff + ((word >> 16) & 1)) >> 16;
  }

  template <int V>
  void product(const float *a, const float *w, float *out) const {
    constexpr int WORDS = (V + 1) / 2;
    Floats sums[2][V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[0][v] = load(out + v * WIDTH), sums[1][v] = Floats{};
    int64_t k = 0;
    for (; k + 2 <= depth_; k += 2)
#pragma GCC unroll 2
      for (int way = 0; way < 2; ++way) add<V>(a[k + way], w + (k + way) * WORDS * WIDTH, sums[way]);
    if (k < depth_) add<V>(a[k], w + k * WORDS * WIDTH, sums[0]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + v * WIDTH, sums[0][v] + sums[1][v]);
  }

  template <int V>
  static void add(float a, const float *w, Floats *sums) {
    Floats value = all(a);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Ints word;
      std::memcpy(&word, w + v / 2 * WIDTH, sizeof word);
      sums[v] += value * bits(v % 2 ? word & static_cast<int32_t>(0xffff0000) : word << 16);
    }
  }

  int64_t depth_, vectors_;
  Buffer data_;
};

// Either kind of weights, for single rows.
class StepWeights {
  using Single = Packed<Whole, 4, 1>;

 public:
  template <class At>
  StepWeights(int64_t depth, int64_t columns, bool half, At at) {
    if (half) half_.reset(new PackedHalf(depth, columns, at));
    else whole_.reset(new Single(Single::by_columns(depth, columns, [&, column = std::vector<float>(depth)](int64_t n) mutable {
      for (int64_t k = 0; k < depth; ++k) column[k] = at(k, n);
      return static_cast<const float *>(column.data());
    })));
  }
  void add_product(const float *a, float *out) const {
    if (half_) half_->multiply(a, out);
    else whole_->multiply(a, 0, 1, out, 0, {out, 0});
  }

 private:
  std::unique_ptr<Single> whole_;
  std::unique_ptr<PackedHalf> half_;
};

// Input weights, then recurrent ones below them, gates padded: for [x; h].
StepWeights both(const float *input, const float *recurrent, int64_t gates, int64_t width, int64_t features,
                 int64_t out, bool half) {
  int64_t wide = padded(width);
  return StepWeights(features + out, gates * wide, half, [=](int64_t k, int64_t n) {
    int64_t row = n / wide * width + n % wide;
    if (n % wide >= width) return 0.0f;
    return k < features ? input[row * features + k] : recurrent[row * out + k - features];
  });
}

class LstmLayer : public Layer {
 public:
  explicit LstmLayer(const LayerWeights &l)
      : Layer(l.features, l.lstm.out, {padded(l.lstm.out), padded(l.lstm.hidden)}), gates_(l.lstm),
        hidden_(l.lstm.hidden), wide_(padded(hidden_)), normal_(l.lstm.gain), bias_(spread_copy(l.bias, 4, hidden_)),
        weights_(normal_ ? both(l.input, nullptr, 4, hidden_, features, 0, l.half)
                         : both(l.input, l.lstm.recurrent, 4, hidden_, features, out, l.half)),
        given_(features + out + WIDTH), sums_(4 * wide_), product_(4 * wide_), shown_(std::max(wide_, padded(out))) {
    if (normal_) recurrent_.reset(new StepWeights(both(l.lstm.recurrent, nullptr, 4, hidden_, out, 0, l.half)));
    if (l.lstm.projection)
      projection_.reset(new StepWeights(both(l.lstm.projection, nullptr, 1, out, hidden_, 0, l.half)));
  }

  const float *step(const float *x, float *state) override {
    float *h = state, *c = state + padded(out);  // Padded, so that the cell can be worked on in place.
    if (normal_) {
      clear(sums_, 4 * wide_), clear(product_, 4 * wide_);
      weights_.add_product(x, sums_);
      recurrent_->add_product(h, product_);
      gates_.normalised<Whole>(sums_, product_, nullptr);
    } else {
      std::memcpy(given_, x, features * sizeof(float));
      std::memcpy(given_ + features, h, out * sizeof(float));
      std::memcpy(sums_, bias_, 4 * wide_ * sizeof(float));
      weights_.add_product(given_, sums_);
    }
    gates_.apply<Whole>(sums_, c, projection_ ? shown_ : h, nullptr);
    if (projection_) {
      clear(h, padded(out));
      projection_->add_product(shown_, h);
    }
    return h;
  }

 private:
  LstmGates gates_;
  int64_t hidden_, wide_;
  bool normal_;
  Buffer bias_;
  StepWeights weights_;
  std::unique_ptr<StepWeights> recurrent_, projection_;
  Buffer given_, sums_, product_, shown_;
};

class GruLayer : public Layer {
 public:
  explicit GruLayer(const LayerWeights &l)
      : Layer(l.features, l.gru.hidden, {padded(l.gru.hidden)}), hidden_(l.gru.hidden),
        wide_(padded(hidden_)), after_(l.gru.reset_after), input_bias_(spread_copy(l.bias, 3, hidden_)),
        bias_(spread_copy(l.gru.bias, 3, hidden_)),
        input_(both(l.input, nullptr, 3, hidden_, features, 0, l.half)),
        recurrent_(both(l.gru.recurrent, nullptr, after_ ? 3 : 2, hidden_, hidden_, 0, l.half)), sums_(3 * wide_),
        product_(3 * wide_), held_(wide_) {
    if (!after_)
      candidate_.reset(
          new StepWeights(both(l.gru.recurrent + 2 * hidden_ * hidden_, nullptr, 1, hidden_, hidden_, 0, l.half)));
  }

  const float *step(const float *x, float *h) override {
    const int64_t W = wide_;
    std::memcpy(sums_, input_bias_, 3 * W * sizeof(float));
    std::memcpy(product_, bias_, 3 * W * sizeof(float));
    input_.add_product(x, sums_);
    recurrent_.add_product(h, product_);
    if (!after_) {
      for (int64_t j = 0; j < W; j += WIDTH) store(held_ + j, sigmoid(load(sums_ + j) + load(product_ + j)) * load(h + j));
      candidate_->add_product(held_, product_ + 2 * W);
    }
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats reset = after_ ? sigmoid(load(sums_ + j) + load(product_ + j)) : all(1.0f);
      Floats keep = sigmoid(load(sums_ + W + j) + load(product_ + W + j));
      Floats fresh = tanh(load(sums_ + 2 * W + j) + reset * load(product_ + 2 * W + j));
      store(h + j, fresh + keep * (load(h + j) - fresh));
    }
    return h;
  }

 private:
  int64_t hidden_, wide_;
  bool after_;
  Buffer input_bias_, bias_;
  StepWeights input_, recurrent_;
  std::unique_ptr<StepWeights> candidate_;
  Buffer sums_, product_, held_;
};

class RnnLayer : public Layer {
 public:
  explicit RnnLayer(const LayerWeights &l)
      : Layer(l.features, l.rnn.hidden, {padded(l.rnn.hidden)}), hidden_(l.rnn.hidden),
        wide_(padded(hidden_)), relu_(l.rnn.relu), bias_(spread_copy(l.bias, 1, hidden_)),
        weights_(both(l.input, l.rnn.recurrent, 1, hidden_, features, hidden_, l.half)), given_(features + hidden_),
        sums_(wide_) {}

  const float *step(const float *x, float *h) override {
    std::memcpy(given_, x, features * sizeof(float));
    std::memcpy(given_ + features, h, hidden_ * sizeof(float));
    std::memcpy(sums_, bias_, wide_ * sizeof(float));
    weights_.add_product(given_, sums_);
    for (int64_t j = 0; j < wide_; j += WIDTH) {
      Floats x1 = load(sums_ + j);
      store(h + j, relu_ ? (x1 > 0.0f ? x1 : (x1 == x1 ? Floats{} : x1)) : tanh(x1));
    }
    return h;
  }

 private:
  int64_t hidden_, wide_;
  bool relu_;
  Buffer bias_;
  StepWeights weights_;
  Buffer given_, sums_;
};

// e^x for x up to 0.
Floats exponential(Floats x) { return exponential_less_one(x) + 1.0f; }

// i / (f + i) of two sigmoids. Above and below are multiplied by the least of 1, e^f and e^i: nothing grows beyond
// all bounds, nor does what is divided by vanish.
Floats taken(Floats forget, Floats take) {
  Floats least = smaller(smaller(forget, take), Floats{}), one = exponential(least);
  Floats let_go = one + exponential(least - forget), let_in = one + exponential(least - take);
  return let_go / (let_go + let_in);
}

class MinLayer : public Layer {
 public:
  explicit MinLayer(const LayerWeights &l)
      : Layer(l.features, l.min.hidden, {padded(l.min.hidden)}), gates_(l.kind == LayerWeights::MIN_LSTM ? 3 : 2),
        wide_(padded(out)), bias_(spread_copy(l.bias, gates_, out)),
        weights_(both(l.input, nullptr, gates_, out, features, 0, l.half)), sums_(gates_ * wide_) {}

  const float *step(const float *x, float *h) override {
    const int64_t W = wide_;
    std::memcpy(sums_, bias_, gates_ * W * sizeof(float));
    weights_.add_product(x, sums_);
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats gate = load(sums_ + j), before = load(h + j);
      Floats share = gates_ == 3 ? taken(gate, load(sums_ + W + j)) : sigmoid(gate);
      Floats fresh = positive(load(sums_ + (gates_ - 1) * W + j));
      store(h + j, before + share * (fresh - before));
    }
    return h;
  }

 private:
  int64_t gates_, wide_;
  Buffer bias_;
  StepWeights weights_;
  Buffer sums_;
};

class LruLayer : public Layer {
 public:
  explicit LruLayer(const LayerWeights &l)
      : Layer(l.features, l.lru.out, {padded(2 * l.lru.hidden)}), hidden_(l.lru.hidden), wide_(padded(hidden_)),
        scale_(spread_copy(l.lru.scale, 1, hidden_)), factor_(spread_copy(l.lru.factor, 2, hidden_)),
        into_(both(l.input, nullptr, 2, hidden_, features, 0, l.half)),
        out_of_(both(l.lru.out_of, l.lru.past, 1, out, 2 * hidden_, features, l.half)), sums_(2 * wide_),
        turned_(2 * wide_), given_(2 * hidden_ + features), shown_(padded(out)) {}

  // Real parts, then imaginary ones right behind them: so they are read in one product, and shown by a zoneout.
  const float *step(const float *x, float *h) override {
    const int64_t W = wide_;
    clear(sums_, 2 * W);
    into_.add_product(x, sums_);
    spread(h, turned_, 2, hidden_);
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats real = load(factor_ + j), imaginary = load(factor_ + W + j), scale = load(scale_ + j);
      Floats a = load(turned_ + j), b = load(turned_ + W + j);
      store(turned_ + j, real * a - imaginary * b + scale * load(sums_ + j));
      store(turned_ + W + j, real * b + imaginary * a + scale * load(sums_ + W + j));
    }
    gather(turned_, h, 2, hidden_);
    std::memcpy(given_, h, 2 * hidden_ * sizeof(float));
    std::memcpy(given_ + 2 * hidden_, x, features * sizeof(float));
    clear(shown_, padded(out));
    out_of_.add_product(given_, shown_);
    return shown_;
  }

 private:
  int64_t hidden_, wide_;
  Buffer scale_, factor_;
  StepWeights into_, out_of_;
  Buffer sums_, turned_, given_, shown_;
};

class CfcLayer : public Layer {
 public:
  explicit CfcLayer(const LayerWeights &l)
      : Layer(l.features, l.cfc.hidden, {padded(l.cfc.hidden)}), elapsed_(l.cfc.elapsed), read_(features - elapsed_),
        wide_(padded(out)), backbone_(padded(l.cfc.backbone)), bias_(spread_copy(l.bias, 1, l.cfc.backbone)),
        heads_bias_(spread_copy(l.cfc.heads_bias, 4, out)),
        weights_(both(l.input, nullptr, 1, l.cfc.backbone, read_ + out, 0, l.half)),
        heads_(both(l.cfc.heads, nullptr, 4, out, l.cfc.backbone, 0, l.half)), given_(read_ + out),
        shared_(backbone_), sums_(4 * wide_) {}

  const float *step(const float *x, float *h) override {
    const int64_t W = wide_;
    std::memcpy(given_, x, read_ * sizeof(float));
    std::memcpy(given_ + read_, h, out * sizeof(float));
    std::memcpy(shared_, bias_, backbone_ * sizeof(float));
    weights_.add_product(given_, shared_);
    for (int64_t j = 0; j < backbone_; j += WIDTH) store(shared_ + j, 1.7159f * tanh(0.666f * load(shared_ + j)));
    std::memcpy(sums_, heads_bias_, 4 * W * sizeof(float));
    heads_.add_product(shared_, sums_);
    const Floats time = all(elapsed_ ? x[read_] : 1.0f);
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats gate = sigmoid(load(sums_ + 2 * W + j) * time + load(sums_ + 3 * W + j));
      Floats first = tanh(load(sums_ + j)), second = tanh(load(sums_ + W + j));
      store(h + j, first + gate * (second - first));
    }
    return h;
  }

 private:
  bool elapsed_;
  int64_t read_, wide_, backbone_;
  Buffer bias_, heads_bias_;
  StepWeights weights_, heads_;
  Buffer given_, shared_, sums_;
};

class MemorylessLayer : public Layer {
 public:
  explicit MemorylessLayer(const LayerWeights &l) : Layer(l.features, l.features, {}) {}

  const float *step(const float *x, float *) override { return x; }
};

// Around a layer, as at evaluation: of each tensor of the state a share stays; the first one is the output.
class ZoneoutLayer : public Layer {
 public:
  explicit ZoneoutLayer(const LayerWeights &l)
      : Layer(l.layers[0]->features, l.layers[0]->out, l.layers[0]->state_sizes), layer_(l.layers[0]),
        shares_(l.shares), before_(state_size()) {}

  const float *step(const float *x, float *state) override {
    std::memcpy(before_, state, state_size() * sizeof(float));
    layer_->step(x, state);
    int64_t at = 0;
    for (size_t i = 0; i < state_sizes.size(); ++i) {
      const float share = shares_[i];
      for (int64_t end = at + state_sizes[i]; at < end; ++at)
        state[at] = share * before_[at] + (1.0f - share) * state[at];
    }
    return state;
  }

 private:
  std::shared_ptr<Layer> layer_;
  std::vector<float> shares_;
  Buffer before_;
};

// Around a layer that is as wide as what it is given: adds the two.
class ResidualLayer : public Layer {
 public:
  explicit ResidualLayer(const LayerWeights &l)
      : Layer(l.layers[0]->features, l.layers[0]->out, l.layers[0]->state_sizes), layer_(l.layers[0]), shown_(out) {}

  const float *step(const float *x, float *state) override {
    const float *y = layer_->step(x, state);
    for (int64_t j = 0; j < out; ++j) shown_[j] = x[j] + y[j];
    return shown_;
  }

 private:
  std::shared_ptr<Layer> layer_;
  Buffer shown_;
};

// Layers one after the other, the state of each on cache lines of its own.
class StackLayer : public Layer {
 public:
  explicit StackLayer(const LayerWeights &l)
      : Layer(l.layers.front()->features, l.layers.back()->out, sizes(l)), layers_(l.layers) {}

  const float *step(const float *x, float *state) override {
    for (size_t i = 0; i < layers_.size(); ++i) {
      x = layers_[i]->step(x, state);
      state += state_sizes[i];
    }
    return x;
  }

 private:
  static std::vector<int64_t> sizes(const LayerWeights &l) {
    std::vector<int64_t> found;
    for (auto &layer : l.layers) found.push_back((layer->state_size() + 15) / 16 * 16);
    return found;
  }

  std::vector<std::shared_ptr<Layer>> layers_;
};

Layer *make_layer(const LayerWeights &l) {
  switch (l.kind) {
    case LayerWeights::LSTM: return new LstmLayer(l);
    case LayerWeights::GRU: return new GruLayer(l);
    case LayerWeights::RNN: return new RnnLayer(l);
    case LayerWeights::MIN_GRU:
    case LayerWeights::MIN_LSTM: return new MinLayer(l);
    case LayerWeights::LRU: return new LruLayer(l);
    case LayerWeights::CFC: return new CfcLayer(l);
    case LayerWeights::MEMORYLESS: return new MemorylessLayer(l);
    case LayerWeights::ZONEOUT: return new ZoneoutLayer(l);
    case LayerWeights::RESIDUAL: return new ResidualLayer(l);
    case LayerWeights::STACK: return new StackLayer(l);
  }
  return nullptr;
}

}  // namespace

// By whether numbers are halves.
#define EITHER(name) \
  { name<Whole>, name<Half> }

const Kernels kernels = {
    STRING(LEVEL), DOTS,
    lstm_kept,     EITHER(lstm_forward), EITHER(lstm_backward),
    gru_kept,      EITHER(gru_forward),  EITHER(gru_backward),
    EITHER(rnn_forward), EITHER(rnn_backward),
    scan_forward,  scan_backward, rotate_forward, rotate_backward, make_layer,
    EITHER(multiply_transposed), EITHER(multiply_plain), EITHER(multiply_turned),
};

}  // namespace LEVEL
