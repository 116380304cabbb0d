// The kernels, compiled once for each instruction set: LEVEL names it and the compiler's flags choose it.

#include "kernels.hpp"
#include "layers.hpp"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

// By whether numbers are halves.
#define EITHER(name) {name<Whole>, name<Half>}

namespace LEVEL {

const Kernels kernels = {
    STRING(LEVEL),
    DOTS,
    lstm_kept,
    EITHER(lstm_forward),
    EITHER(lstm_backward),
    gru_kept,
    EITHER(gru_forward),
    EITHER(gru_backward),
    EITHER(rnn_forward),
    EITHER(rnn_backward),
    scan_forward,
    scan_backward,
    rotate_forward,
    rotate_backward,
    make_layer,
    EITHER(multiply_transposed),
    EITHER(multiply_plain),
    EITHER(multiply_turned),
};

}  // namespace LEVEL
