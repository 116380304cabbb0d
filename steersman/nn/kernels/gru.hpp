// GRU. Kept for each step: r z n, and U h + b of n (reset after) or r h (reset before).
#pragma once

#include "tiles.hpp"
#include "weights.hpp"

namespace LEVEL {
namespace {

int64_t gru_kept(const Gru &p) { return 4 * padded(p.hidden); }

template <class Number>
void gru_forward(const Gru &p, const GruForward &to, const int64_t *rows, int64_t num_rows) {
  const int64_t H = p.hidden, T = p.steps, W = padded(H), S = gru_kept(p), G = apart(3 * W);
  const bool after = p.reset_after;
  Projection<Number> inputs(p.inputs, 3, H);
  auto recurrent = pack_transposed<Number>(p.recurrent, after ? 3 : 2, H, H);
  std::unique_ptr<Packed<Number>> candidate;
  if (!after) candidate.reset(new Packed<Number>(pack_transposed<Number>(p.recurrent + 2 * H * H, 1, H, H)));
  Buffer bias = spread_copy(p.bias, 3, H), h(TILE * W), x(chunk_rows(num_rows, T) * G, false), u(TILE * G),
         rh(TILE * W);
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
            Floats reset = Number::kept(own + j), keep = Number::kept(own + W + j),
                   fresh = Number::kept(own + 2 * W + j);
            Floats other = Number::kept(own + 3 * W + j), grad = load(dhr + j);
            Floats dfresh = grad * (1.0f - keep) * (1.0f - fresh * fresh);
            Floats dkeep = grad * (load(past + j) - fresh) * keep * (1.0f - keep);
            store(dr + 2 * W + j, dfresh), store(dr + W + j, dkeep), store(dur + W + j, dkeep);
            store(dbias + 2 * W + j, load(dbias + 2 * W + j) + dfresh),
                store(dbias + W + j, load(dbias + W + j) + dkeep);
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

// One step of one sequence.
class GruLayer : public Layer {
 public:
  explicit GruLayer(const LayerWeights &l)
      : Layer(l.features, l.gru.hidden, {padded(l.gru.hidden)}), hidden_(l.gru.hidden), wide_(padded(hidden_)),
        after_(l.gru.reset_after), input_bias_(spread_copy(l.bias, 3, hidden_)),
        bias_(spread_copy(l.gru.bias, 3, hidden_)), input_(both(l.input, nullptr, 3, hidden_, features, 0, l.half)),
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
      for (int64_t j = 0; j < W; j += WIDTH)
        store(held_ + j, sigmoid(load(sums_ + j) + load(product_ + j)) * load(h + j));
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

}  // namespace
}  // namespace LEVEL
