// LSTM. Kept for each step: the cell, then the gates i f g o; with normalisation, in their place, U h and W x
// normalised, and the scales of both. What else the way back needs is quicker worked out again than fetched from
// memory.
#pragma once

#include "tiles.hpp"
#include "weights.hpp"

namespace LEVEL {
namespace {

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
  Floats gated(Floats u, Floats w, int64_t j) const {
    return w * load(input_gain + j) + load(bias + j) + u * load(gain + j);
  }

  // Takes the sums of i f g o and the cell, which becomes the new one; gives o tanh(cell).
  template <class Number>
  void apply(float *sums, float *cell, float *out, typename Number::Kept *kept) const {
    const int64_t W = wide;
    for (int64_t j = 0; j < W; j += WIDTH) {
      Floats before = load(cell + j);
      const Four now =
          gates(load(sums + j), load(sums + W + j), load(sums + 2 * W + j), load(sums + 3 * W + j), before, j);
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
  __attribute__((always_inline)) Four gates(Floats in, Floats forget, Floats update, Floats out, Floats before,
                                            int64_t j) const {
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
  Buffer h(TILE * PW), c(TILE * W), u(chunk_rows(num_rows, T) * G, false), v(normal ? TILE * G : 0),
      m(projection ? TILE * W : 0);
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
  Buffer d(most * G, false), e(normal ? most * G : 0, false), dp(projection ? most * AP : 0),
      cells(projection ? most * AW : 0);
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
            // The gates again, and the output's tanh; then the gradient of the cell that goes through its
            // normalisation.
            for (int64_t j = 0; j < W; j += WIDTH) store(cell + j, Number::kept(own + j));
            const Normal c(cell, mask, W, H, p.epsilon);
            Normalised through;
            for (int64_t j = 0; j < W; j += WIDTH) {
              auto seen = [&](int64_t at) {
                return weights.gated(Number::kept(own + W + at), Number::kept(own + 5 * W + at), at);
              };
              auto now = weights.gates(seen(j), seen(W + j), seen(2 * W + j), seen(3 * W + j), cell_before(j), j);
              store(again + j, now.in), store(again + W + j, now.forget), store(again + 2 * W + j, now.update),
                  store(again + 3 * W + j, now.out);
              Floats unit = c.of(cell, j),
                     shown = tanh(unit * load(weights.cell_gain + j) + load(weights.cell_bias + j));
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

// One step of one sequence.
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

}  // namespace
}  // namespace LEVEL
