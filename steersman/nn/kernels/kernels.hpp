// What every instruction set's build of the kernels offers. All arrays are C-contiguous floats, batch first.
// `rows` lists the batch rows to do, longest first; `lengths` is by batch row. A null pointer means: not there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

// What comes into a layer, and its weights.
struct Inputs {
  int64_t features;
  const float *x;       // (batch, steps, features)
  const float *weight;  // (gates hidden, features)
  const float *bias;    // (gates hidden)
};

struct InputGradients {
  float *dx;               // or null
  float *dweight, *dbias;  // added to
};

struct Lstm {
  int64_t steps, hidden, out;          // out == hidden where there is no projection
  std::vector<float> bias;             // of the input and of the state together: they act as one
  Inputs inputs;                       // gates i f g o
  const float *recurrent;              // (4 hidden, out)
  const float *projection;             // (out, hidden)
  const float *peepholes;              // (3, hidden) of i, f, o
  const float *input_gain, *gain;      // (4 hidden) of the normalised W x and U h
  const float *cell_gain, *cell_bias;  // (hidden) of the normalised cell
  float epsilon;
  const float *h0, *c0;  // (batch, out), (batch, hidden)
  const int64_t *lengths;
};

struct LstmForward {
  float *y;      // (batch, steps, out)
  float *h, *c;  // the states after each row's last step
  void *kept;    // (batch, steps, lstm_kept) for the way back, or null
};

struct LstmBackward {
  const void *kept;
  const float *y, *dy, *dh, *dc;  // dh and dc may be null for zeros
  InputGradients inputs;
  float *dh0, *dc0;                                                                              // or null
  float *drecurrent, *dprojection, *dpeepholes, *dinput_gain, *dgain, *dcell_gain, *dcell_bias;  // added to
};

struct Gru {
  int64_t steps, hidden;
  bool reset_after;        // PyTorch's and cuDNN's form; else the reset gate acts before the product
  Inputs inputs;           // gates r z n
  const float *recurrent;  // (3 hidden, hidden)
  const float *bias;       // (3 hidden) of the recurrent product
  const float *h0;
  const int64_t *lengths;
};

struct GruForward {
  float *y, *h;
  void *kept;  // (batch, steps, gru_kept)
};

struct GruBackward {
  const void *kept;
  const float *y, *dy, *dh;
  InputGradients inputs;
  float *dh0;
  float *drecurrent, *dbias;  // added to
};

struct Rnn {
  int64_t steps, hidden;
  bool relu;
  std::vector<float> bias;  // as an LSTM's
  Inputs inputs;
  const float *recurrent, *h0;  // (hidden, hidden), (batch, hidden)
  const int64_t *lengths;
};

struct RnnForward {
  float *y, *h;
};

struct RnnBackward {
  const float *y, *dy, *dh;
  InputGradients inputs;
  float *dh0;
  float *drecurrent;  // added to
};

// h_t = a_t h_(t-1) + b_t, element by element; or minGRU (Feng et al. 2024), whose gates are fused in:
// a = 1 - sigmoid(z), b = sigmoid(z) g(v).
struct Scan {
  int64_t steps, hidden;
  bool gated;
  const float *a, *b;  // (batch, steps, hidden)
  const float *h0;
  const int64_t *lengths;
};

// h_t = r h_(t-1) + b_t with one complex number r a unit; states and inputs are real parts, then imaginary ones.
struct Rotation {
  int64_t steps, hidden;
  const float *factor;  // (2, hidden)
  const float *inputs;  // (batch, steps, 2 hidden)
  const float *h0;      // (batch, 2 hidden)
  const int64_t *lengths;
};

struct Product {
  int64_t rows, depth, columns;
  const float *a, *b, *bias;  // bias (columns) or null
  float *out;                 // (rows, columns)
};

// A layer for one step at a time, its weights packed; sequences share it, in turn, each with its own state.
struct Layer {
  Layer(int64_t features, int64_t out, std::vector<int64_t> state_sizes)
      : features(features), out(out), state_sizes(std::move(state_sizes)) {}
  virtual ~Layer() = default;
  // The output, which stands until the next step; no memory is taken.
  virtual const float *step(const float *x, float *state) = 0;

  int64_t state_size() const {
    int64_t total = 0;
    for (int64_t size : state_sizes) total += size;
    return total;
  }

  // Where each tensor of the state begins, behind so many floats.
  virtual void places(std::vector<int64_t> &found, int64_t before) const {
    for (int64_t size : state_sizes) found.push_back(before), before += size;
  }

  const int64_t features, out;
  // Floats of each tensor of the state, padding included; of a STACK, of each layer's state.
  const std::vector<int64_t> state_sizes;
};

struct Min {
  int64_t hidden;  // the input's gates are z v of a MIN_GRU, f i v of a MIN_LSTM
};

struct Lru {
  int64_t hidden, out;
  const float *scale;          // (hidden) of what comes in
  const float *factor;         // (2, hidden) as a Rotation's
  const float *out_of, *past;  // (out, 2 hidden) and (out, features)
};

struct Cfc {
  int64_t hidden, backbone;  // its input weights are (backbone, features that are no time + hidden)
  bool elapsed;              // the last feature is the time that a step takes
  const float *heads;        // (4 hidden, backbone): two values, rate and shift
  const float *heads_bias;   // (4 hidden)
};

struct LayerWeights {
  enum Kind {
    LSTM,
    GRU,
    RNN,
    MIN_GRU,
    MIN_LSTM,
    LRU,
    CFC,
    MEMORYLESS,
    STANDARD,
    LINEAR,
    ZONEOUT,
    RESIDUAL,
    STACK
  } kind;
  int64_t features;
  bool half;           // weights in bfloat16
  const float *input;  // (gates hidden, features); of LINEAR (out, features); of STANDARD means (features)
  const float *bias;   // (gates hidden) of the input, and of the state too where they act as one; of LINEAR (out);
                       // of STANDARD deviations (features)
  int64_t out;         // of LINEAR
  Lstm lstm;
  Gru gru;
  Rnn rnn;
  Min min;
  Lru lru;
  Cfc cfc;
  std::vector<std::shared_ptr<Layer>> layers;  // of a STACK; the one that a ZONEOUT or a RESIDUAL is around
  std::vector<float> shares;                   // that a ZONEOUT keeps of each tensor of the state
};

// A kernel in float32, and the same with the factors of its products rounded to bfloat16.
template <class... Given>
using Either = void (*[2])(Given...);

struct Kernels {
  const char *name;
  bool dots;                           // The machine multiplies pairs of bfloat16 faster than floats.
  int64_t (*lstm_kept)(const Lstm &);  // In numbers.
  Either<const Lstm &, const LstmForward &, const int64_t *, int64_t> lstm_forward;
  Either<const Lstm &, const LstmBackward &, const int64_t *, int64_t> lstm_backward;
  int64_t (*gru_kept)(const Gru &);
  Either<const Gru &, const GruForward &, const int64_t *, int64_t> gru_forward;
  Either<const Gru &, const GruBackward &, const int64_t *, int64_t> gru_backward;
  Either<const Rnn &, const RnnForward &, const int64_t *, int64_t> rnn_forward;
  Either<const Rnn &, const RnnBackward &, const int64_t *, int64_t> rnn_backward;
  void (*scan_forward)(const Scan &, float *y, float *h, const int64_t *rows, int64_t num_rows);
  void (*scan_backward)(const Scan &, const float *y, const float *dy, const float *dh, float *da, float *db,
                        float *dh0, const int64_t *rows, int64_t num_rows);
  void (*rotate_forward)(const Rotation &, float *y, float *h, const int64_t *rows, int64_t num_rows);
  void (*rotate_backward)(const Rotation &, const float *y, const float *dy, const float *dh, float *dinputs,
                          float *dh0, float *dfactor, const int64_t *rows, int64_t num_rows);
  Layer *(*make_layer)(const LayerWeights &);
  Either<const Product &, int64_t, int64_t> multiply_transposed, multiply_plain, multiply_turned;
};

// Memory that begins on a cache line; given back, it is kept for the next who asks: fresh memory costs the system a
// fault a page.
void *take_memory(size_t bytes);
void give_memory(void *memory, size_t bytes);

namespace generic {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512_bf16 {
extern const Kernels kernels;
}
