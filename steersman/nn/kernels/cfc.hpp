// Closed-form continuous time, one step of one sequence.
#pragma once

#include "tiles.hpp"
#include "weights.hpp"

namespace LEVEL {
namespace {

class CfcLayer : public Layer {
 public:
  explicit CfcLayer(const LayerWeights &l)
      : Layer(l.features, l.cfc.hidden, {padded(l.cfc.hidden)}), elapsed_(l.cfc.elapsed), read_(features - elapsed_),
        wide_(padded(out)), backbone_(padded(l.cfc.backbone)), bias_(spread_copy(l.bias, 1, l.cfc.backbone)),
        heads_bias_(spread_copy(l.cfc.heads_bias, 4, out)),
        weights_(both(l.input, nullptr, 1, l.cfc.backbone, read_ + out, 0, l.half)),
        heads_(both(l.cfc.heads, nullptr, 4, out, l.cfc.backbone, 0, l.half)), given_(read_ + out), shared_(backbone_),
        sums_(4 * wide_) {}

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

}  // namespace
}  // namespace LEVEL
