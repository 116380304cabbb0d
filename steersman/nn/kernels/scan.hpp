// Linear recurrences: minGRU, minLSTM and the linear recurrent unit.
#pragma once

#include "tiles.hpp"
#include "weights.hpp"

namespace LEVEL {
namespace {

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
      if (p.gated)
        whole ? scan_column<true, true>(p, row, j, y, h_last) : scan_column<true, false>(p, row, j, y, h_last);
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

}  // namespace
}  // namespace LEVEL
