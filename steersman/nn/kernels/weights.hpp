// One step of one sequence, weights packed once: [input and state][gates], in float32 or in bfloat16.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "kernels.hpp"
#include "products.hpp"
#include "vectors.hpp"

namespace LEVEL {
namespace {

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
    else
      whole_.reset(
          new Single(Single::by_columns(depth, columns, [&, column = std::vector<float>(depth)](int64_t n) mutable {
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

}  // namespace
}  // namespace LEVEL
