// Layers made of other layers, and the making of all of them.
#pragma once

#include <memory>
#include <vector>

#include "cfc.hpp"
#include "gru.hpp"
#include "lstm.hpp"
#include "rnn.hpp"
#include "scan.hpp"

namespace LEVEL {
namespace {

class MemorylessLayer : public Layer {
 public:
  explicit MemorylessLayer(const LayerWeights &l) : Layer(l.features, l.features, {}) {}

  const float *step(const float *x, float *) override { return x; }
};

// Numbers less their means, in deviations.
class StandardLayer : public Layer {
 public:
  explicit StandardLayer(const LayerWeights &l)
      : Layer(l.features, l.features, {}), mean_(l.features), deviation_(l.features), shown_(l.features) {
    std::memcpy(mean_, l.input, out * sizeof(float));
    std::memcpy(deviation_, l.bias, out * sizeof(float));
  }

  const float *step(const float *x, float *) override {
    for (int64_t j = 0; j < out; ++j) shown_[j] = (x[j] - mean_[j]) / deviation_[j];
    return shown_;
  }

 private:
  Buffer mean_, deviation_, shown_;
};

class LinearLayer : public Layer {
 public:
  explicit LinearLayer(const LayerWeights &l)
      : Layer(l.features, l.out, {}), bias_(padded(l.out)), shown_(padded(l.out)),
        weights_(l.features, padded(l.out), l.half,
                 [&](int64_t k, int64_t n) { return n < l.out ? l.input[n * l.features + k] : 0.0f; }) {
    std::memcpy(bias_, l.bias, out * sizeof(float));
  }

  const float *step(const float *x, float *) override {
    std::memcpy(shown_, bias_, padded(out) * sizeof(float));
    weights_.add_product(x, shown_);
    return shown_;
  }

 private:
  Buffer bias_, shown_;
  StepWeights weights_;
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

  void places(std::vector<int64_t> &found, int64_t before) const override {
    for (size_t i = 0; i < layers_.size(); before += state_sizes[i++]) layers_[i]->places(found, before);
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
    case LayerWeights::STANDARD: return new StandardLayer(l);
    case LayerWeights::LINEAR: return new LinearLayer(l);
    case LayerWeights::ZONEOUT: return new ZoneoutLayer(l);
    case LayerWeights::RESIDUAL: return new ResidualLayer(l);
    case LayerWeights::STACK: return new StackLayer(l);
  }
  return nullptr;
}

}  // namespace
}  // namespace LEVEL
