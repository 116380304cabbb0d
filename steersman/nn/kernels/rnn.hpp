// Plain RNN: all that the way back needs is y.
#pragma once

#include "tiles.hpp"
#include "weights.hpp"

namespace LEVEL {
namespace {

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

// One step of one sequence.
class RnnLayer : public Layer {
 public:
  explicit RnnLayer(const LayerWeights &l)
      : Layer(l.features, l.rnn.hidden, {padded(l.rnn.hidden)}), hidden_(l.rnn.hidden), wide_(padded(hidden_)),
        relu_(l.rnn.relu), bias_(spread_copy(l.bias, 1, hidden_)),
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

}  // namespace
}  // namespace LEVEL
