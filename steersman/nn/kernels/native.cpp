// Python's way to the kernels: sizes are checked here, before any memory is touched; then rows go to threads.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "kernels.hpp"

namespace {

// Memory that was given back, oldest first.
struct Kept {
  static constexpr size_t MOST = size_t(256) << 20, LEAST = 4096, PIECES = 1000;
  Kept() { free.reserve(PIECES + 1); }  // Giving back never fails.
  std::mutex lock;
  std::vector<std::pair<void *, size_t>> free;
  size_t total = 0;
};

Kept &kept() {
  static Kept *memory = new Kept;  // Never destroyed: what is given back last may come after everything else.
  return *memory;
}

}  // namespace

void *take_memory(size_t bytes) {
  Kept &memory = kept();
  {
    std::lock_guard<std::mutex> locked(memory.lock);
    auto last = std::find_if(memory.free.rbegin(), memory.free.rend(), [&](auto &one) { return one.second == bytes; });
    if (last != memory.free.rend()) {
      void *found = last->first;
      memory.free.erase(std::next(last).base());
      memory.total -= bytes;
      return found;
    }
  }
  void *fresh = nullptr;
  if (posix_memalign(&fresh, 64, bytes)) throw std::bad_alloc();
  return fresh;
}

void give_memory(void *pointer, size_t bytes) {
  if (!pointer) return;
  Kept &memory = kept();
  if (bytes < Kept::LEAST) return std::free(pointer);
  std::lock_guard<std::mutex> locked(memory.lock);
  memory.free.emplace_back(pointer, bytes);
  memory.total += bytes;
  size_t gone = 0;
  for (; memory.total > Kept::MOST || memory.free.size() - gone > Kept::PIECES; ++gone) {
    std::free(memory.free[gone].first);
    memory.total -= memory.free[gone].second;
  }
  memory.free.erase(memory.free.begin(), memory.free.begin() + gone);
}

namespace nb = nanobind;

// An array on the CPU, row after row: one of NumPy's, or a tensor, whose own few attributes are a fifth of the way
// through NumPy or DLPack.
template <class Number>
class Rows {
 public:
  static constexpr size_t MOST = 4;  // axes

  bool take(nb::handle from) {
    PyObject *kind = torchs().tensor;
    return kind && PyObject_TypeCheck(from.ptr(), reinterpret_cast<PyTypeObject *>(kind)) ? tensor(from.ptr())
                                                                                          : other(from);
  }
  Number *data() const { return data_; }
  size_t ndim() const { return ndim_; }
  int64_t shape(size_t axis) const { return shape_[axis]; }

 private:
  using Numpys = nb::ndarray<Number, nb::c_contig, nb::device::cpu>;

  // What is asked of a tensor; looked up once, and never given back.
  struct Torch {
    PyObject *tensor = nullptr, *number = nullptr, *dtype, *is_cpu, *is_contiguous, *data_ptr, *shape;
    Torch() {
      PyObject *torch = PyImport_GetModule(nb::str("torch").ptr());
      if (!torch) {  // Without it there are no tensors.
        PyErr_Clear();
        return;
      }
      number = PyObject_GetAttrString(torch, sizeof(Number) == 4 ? "float32" : "int64");
      tensor = PyObject_GetAttrString(torch, "Tensor");
      dtype = PyUnicode_InternFromString("dtype"), is_cpu = PyUnicode_InternFromString("is_cpu");
      is_contiguous = PyUnicode_InternFromString("is_contiguous"), data_ptr = PyUnicode_InternFromString("data_ptr");
      shape = PyUnicode_InternFromString("shape");
    }
  };

  static const Torch &torchs() {
    static const Torch *names = new Torch;
    return *names;
  }

  bool tensor(PyObject *from) {
    const Torch &names = torchs();
    auto is = [&](PyObject *found, PyObject *wanted) {
      Py_XDECREF(found);  // Each of these lives as long as its module.
      return found && found == wanted;
    };
    if (!is(PyObject_GetAttr(from, names.dtype), names.number) || !is(PyObject_GetAttr(from, names.is_cpu), Py_True) ||
        !is(PyObject_CallMethodNoArgs(from, names.is_contiguous), Py_True))
      return PyErr_Clear(), false;  // A caster may not throw.
    nb::object sizes = nb::steal(PyObject_GetAttr(from, names.shape));
    nb::object address = nb::steal(PyObject_CallMethodNoArgs(from, names.data_ptr));
    if (!sizes.is_valid() || !address.is_valid()) return PyErr_Clear(), false;
    ndim_ = static_cast<size_t>(PyTuple_GET_SIZE(sizes.ptr()));
    if (ndim_ > MOST) return false;
    for (size_t i = 0; i < ndim_; ++i) shape_[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), i));
    data_ = static_cast<Number *>(PyLong_AsVoidPtr(address.ptr()));
    return true;
  }

  bool other(nb::handle from) {
    if (!nb::try_cast(from, numpys_) || numpys_.ndim() > MOST) return false;
    data_ = numpys_.data(), ndim_ = numpys_.ndim();
    for (size_t i = 0; i < ndim_; ++i) shape_[i] = static_cast<int64_t>(numpys_.shape(i));
    return true;
  }

  Number *data_ = nullptr;
  size_t ndim_ = 0;
  int64_t shape_[MOST] = {};
  Numpys numpys_;
};

template <class Number>
struct nanobind::detail::type_caster<Rows<Number>> {
  NB_TYPE_CASTER(Rows<Number>, const_name("array"))
  bool from_python(handle from, uint8_t, cleanup_list *) { return value.take(from); }
};

using Array = Rows<float>;
using Lengths = Rows<int64_t>;
using Maybe = std::optional<Array>;

namespace {

std::vector<const Kernels *> levels() {
  std::vector<const Kernels *> found{&generic::kernels};
#ifdef WITH_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    found.push_back(&avx512::kernels);
  if (found.back() == &avx512::kernels && __builtin_cpu_supports("avx512bf16")) found.push_back(&avx512_bf16::kernels);
#endif
  return found;
}

const Kernels *chosen = levels().back();

std::vector<std::string> level_names() {
  std::vector<std::string> names;
  for (const Kernels *level : levels()) names.push_back(level->name);
  return names;
}

void choose(const std::string &name) {
  for (const Kernels *level : levels())
    if (name == level->name) {
      chosen = level;
      return;
    }
  throw nb::value_error(("this machine has no instruction set " + name).c_str());
}

template <class Any>
std::string shape_of(const Any &array) {
  std::string text = "(";
  for (size_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + ")";
}

float none;  // Where arrays of no size begin, whose pointer may be null: null says that there is no array.

// The array's floats, once its shape is what it must be.
float *floats(const char *name, const Array &array, std::initializer_list<int64_t> shape) {
  bool good = array.ndim() == shape.size();
  size_t i = 0;
  for (int64_t size : shape) good = good && static_cast<int64_t>(array.shape(i++)) == size;
  if (!good) {
    std::string expected = "(";
    for (int64_t size : shape) expected += (expected.size() > 1 ? ", " : "") + std::to_string(size);
    throw nb::value_error((std::string(name) + ": expected shape " + expected + "), got " + shape_of(array)).c_str());
  }
  return array.data() ? array.data() : &none;
}

float *floats(const char *name, const Maybe &array, std::initializer_list<int64_t> shape) {
  return array ? floats(name, *array, shape) : nullptr;
}

int64_t size_at(const char *name, const Array &array, size_t axis) {
  if (axis >= array.ndim()) throw nb::value_error((std::string(name) + ": too few axes in " + shape_of(array)).c_str());
  return static_cast<int64_t>(array.shape(axis));
}

const int64_t *checked(const Lengths &lengths, int64_t batch, int64_t steps) {
  if (lengths.ndim() != 1 || static_cast<int64_t>(lengths.shape(0)) != batch)
    throw nb::value_error(
        ("lengths: expected shape (" + std::to_string(batch) + "), got " + shape_of(lengths)).c_str());
  for (int64_t i = 0; i < batch; ++i)
    if (lengths.data()[i] < 0 || lengths.data()[i] > steps)
      throw nb::value_error(
          ("lengths: expected 0 to " + std::to_string(steps) + ", got " + std::to_string(lengths.data()[i])).c_str());
  return lengths.data();
}

// `work(k)` on each of `num` threads; the first thing that goes wrong on any of them is thrown here.
template <class Work>
void on_threads(int64_t num, Work work) {
  std::vector<std::exception_ptr> failed(num);
  auto one = [&](int64_t k) {
    try {
      work(k);
    } catch (...) {
      failed[k] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(num);
  for (int64_t k = 1; k < num; ++k) {
    try {
      others.emplace_back(one, k);
    } catch (...) {
      one(k);  // No thread is to be had: then here.
    }
  }
  one(0);
  for (auto &thread : others) thread.join();
  for (auto &each : failed)
    if (each) std::rethrow_exception(each);
}

// Every thread does its share of the rows, longest first: `work(rows, number, thread)`.
template <class Work>
void in_threads(const int64_t *lengths, int64_t batch, int threads, Work work) {
  std::vector<int64_t> order(batch);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  nb::gil_scoped_release unlocked;
  int64_t num = std::max<int64_t>(1, std::min<int64_t>(threads, batch));
  std::vector<std::vector<int64_t>> shares(num);
  for (int64_t i = 0; i < batch; ++i) shares[i % num].push_back(order[i]);
  on_threads(num, [&](int64_t k) { work(shares[k].data(), static_cast<int64_t>(shares[k].size()), k); });
}

// A gradient that all threads add to: each to its own part, summed at the end in a fixed order.
class Shared {
 public:
  Shared(float *to, int64_t size, int64_t threads)
      : to_(to), size_(size), parts_(to && threads > 1 ? size * (threads - 1) : 0) {}
  float *part(int64_t thread) { return to_ && thread ? parts_.data() + (thread - 1) * size_ : to_; }
  ~Shared() {
    for (size_t i = 0; i < parts_.size(); ++i) to_[i % size_] += parts_[i];
  }

 private:
  float *to_;
  int64_t size_;
  std::vector<float> parts_;
};

// An array whose memory comes from what was given back, and goes there; what it holds is not said.
nb::object scratch(const std::vector<size_t> &shape) {
  struct Piece {
    void *memory;
    size_t bytes;
  };
  size_t bytes = sizeof(float);
  for (size_t size : shape) bytes *= size;
  bytes = std::max<size_t>(bytes, 64);
  auto *piece = new Piece{take_memory(bytes), bytes};
  nb::capsule owner(piece, [](void *p) noexcept {
    auto *piece = static_cast<Piece *>(p);
    give_memory(piece->memory, piece->bytes);
    delete piece;
  });
  return nb::cast(nb::ndarray<nb::numpy, float>(piece->memory, shape.size(), shape.data(), owner));
}

bool all_finite(const Array &x) {
  int64_t size = 1;
  for (size_t i = 0; i < x.ndim(); ++i) size *= x.shape(i);
  bool good = true;
  for (int64_t i = 0; i < size; ++i) {
    uint32_t word;
    std::memcpy(&word, x.data() + i, sizeof word);
    good &= (word & 0x7f800000) != 0x7f800000;  // An exponent of ones alone: infinity, or not a number.
  }
  return good;
}

int64_t threads_for(int64_t batch, int threads) { return std::max<int64_t>(1, std::min<int64_t>(threads, batch)); }

Inputs inputs(const Array &x, const Array &weight, const Array &bias, int64_t rows) {
  Inputs p;
  p.features = size_at("x", x, 2);
  p.x = floats("x", x, {size_at("x", x, 0), size_at("x", x, 1), p.features});
  p.weight = floats("weight", weight, {rows, p.features}), p.bias = floats("bias", bias, {rows});
  return p;
}

// The sum of the input's bias and the state's, where the two act as one.
std::vector<float> together(const Array &bias, const Array &recurrent_bias, int64_t rows) {
  const float *a = floats("bias", bias, {rows}), *b = floats("recurrent_bias", recurrent_bias, {rows});
  std::vector<float> sum(a, a + rows);
  for (int64_t j = 0; j < rows; ++j) sum[j] += b[j];
  return sum;
}

InputGradients input_gradients(const Array &x, int64_t rows, const Maybe &dx, const Array &dweight,
                               const Array &dbias) {
  InputGradients to;
  int64_t features = size_at("x", x, 2);
  to.dx = floats("dx", dx, {size_at("x", x, 0), size_at("x", x, 1), features});
  to.dweight = floats("dweight", dweight, {rows, features}), to.dbias = floats("dbias", dbias, {rows});
  return to;
}

// The same for each thread.
struct SharedInputs {
  SharedInputs(const InputGradients &to, int64_t rows, int64_t features, int64_t threads)
      : dx(to.dx), weight(to.dweight, rows * features, threads), bias(to.dbias, rows, threads) {}
  InputGradients part(int64_t thread) { return {dx, weight.part(thread), bias.part(thread)}; }
  float *dx;
  Shared weight, bias;
};

// Floats that hold so many numbers.
int64_t floats_for(int64_t numbers, bool half) { return half ? (numbers + 1) / 2 : numbers; }

Lstm lstm(const Array &x, const Array &weight, const Array &bias, const Array &recurrent, const Array &recurrent_bias,
          const Array &h0, const Array &c0, const Lengths &lengths, const Maybe &projection, const Maybe &peepholes,
          const Maybe &input_gain, const Maybe &gain, const Maybe &cell_gain, const Maybe &cell_bias, float epsilon) {
  int64_t batch = size_at("x", x, 0), hidden = size_at("c0", c0, 1), out = size_at("h0", h0, 1);
  if (bool(gain) != bool(cell_gain) || bool(gain) != bool(cell_bias) || bool(gain) != bool(input_gain))
    throw nb::value_error("input_gain, gain, cell_gain and cell_bias: give all or none");
  if (!projection && hidden != out) throw nb::value_error("h0: as wide as c0 where there is no projection");
  Lstm p;
  p.steps = size_at("x", x, 1), p.hidden = hidden, p.out = out, p.epsilon = epsilon;
  p.inputs = inputs(x, weight, bias, 4 * hidden);
  p.bias = together(bias, recurrent_bias, 4 * hidden), p.inputs.bias = p.bias.data();
  p.recurrent = floats("recurrent", recurrent, {4 * hidden, out});
  p.projection = floats("projection", projection, {out, hidden});
  p.peepholes = floats("peepholes", peepholes, {3, hidden});
  p.input_gain = floats("input_gain", input_gain, {4 * hidden});
  p.gain = floats("gain", gain, {4 * hidden});
  p.cell_gain = floats("cell_gain", cell_gain, {hidden});
  p.cell_bias = floats("cell_bias", cell_bias, {hidden});
  p.h0 = floats("h0", h0, {batch, out});
  p.c0 = floats("c0", c0, {batch, hidden});
  p.lengths = checked(lengths, batch, p.steps);
  return p;
}

int64_t lstm_kept(int64_t hidden, bool normal, bool half) {
  Lstm p{};
  float any = 0;
  p.hidden = hidden, p.gain = normal ? &any : nullptr;
  return floats_for(chosen->lstm_kept(p), half);
}

void lstm_forward(const Array &x, const Array &weight, const Array &bias, const Array &recurrent,
                  const Array &recurrent_bias, const Array &h0, const Array &c0, const Lengths &lengths,
                  const Maybe &projection, const Maybe &peepholes, const Maybe &input_gain, const Maybe &gain,
                  const Maybe &cell_gain, const Maybe &cell_bias, float epsilon, const Array &y, const Array &h,
                  const Array &c, const Maybe &kept, bool half, int threads) {
  Lstm p = lstm(x, weight, bias, recurrent, recurrent_bias, h0, c0, lengths, projection, peepholes, input_gain, gain,
                cell_gain, cell_bias, epsilon);
  int64_t batch = size_at("x", x, 0);
  LstmForward to;
  to.y = floats("y", y, {batch, p.steps, p.out});
  to.h = floats("h", h, {batch, p.out});
  to.c = floats("c", c, {batch, p.hidden});
  to.kept = floats("kept", kept, {batch, p.steps, floats_for(chosen->lstm_kept(p), half)});
  in_threads(p.lengths, batch, threads,
             [&](const int64_t *rows, int64_t number, int64_t) { chosen->lstm_forward[half](p, to, rows, number); });
}

void lstm_backward(const Array &x, const Array &weight, const Array &bias, const Array &recurrent,
                   const Array &recurrent_bias, const Array &h0, const Array &c0, const Lengths &lengths,
                   const Maybe &projection, const Maybe &peepholes, const Maybe &input_gain, const Maybe &gain,
                   const Maybe &cell_gain, const Maybe &cell_bias, float epsilon, const Array &kept, const Array &y,
                   const Array &dy, const Maybe &dh, const Maybe &dc, const Maybe &dx, const Array &dweight,
                   const Array &dbias, const Array &drecurrent, const Maybe &dh0, const Maybe &dc0,
                   const Maybe &dprojection, const Maybe &dpeepholes, const Maybe &dinput_gain, const Maybe &dgain,
                   const Maybe &dcell_gain, const Maybe &dcell_bias, bool half, int threads) {
  Lstm p = lstm(x, weight, bias, recurrent, recurrent_bias, h0, c0, lengths, projection, peepholes, input_gain, gain,
                cell_gain, cell_bias, epsilon);
  int64_t batch = size_at("x", x, 0), H = p.hidden, T = p.steps;
  LstmBackward to;
  to.kept = floats("kept", kept, {batch, T, floats_for(chosen->lstm_kept(p), half)});
  to.y = floats("y", y, {batch, T, p.out});
  to.dy = floats("dy", dy, {batch, T, p.out});
  to.dh = floats("dh", dh, {batch, p.out});
  to.dc = floats("dc", dc, {batch, H});
  to.inputs = input_gradients(x, 4 * H, dx, dweight, dbias);
  to.dh0 = floats("dh0", dh0, {batch, p.out});
  to.dc0 = floats("dc0", dc0, {batch, H});
  float *recur = floats("drecurrent", drecurrent, {4 * H, p.out}),
        *project = floats("dprojection", dprojection, {p.out, H});
  float *peep = floats("dpeepholes", dpeepholes, {3, H}), *dig = floats("dinput_gain", dinput_gain, {4 * H});
  float *dg = floats("dgain", dgain, {4 * H});
  float *dcg = floats("dcell_gain", dcell_gain, {H}), *dcb = floats("dcell_bias", dcell_bias, {H});
  if ((p.peepholes && !peep) || (p.gain && !(dig && dg && dcg && dcb)) || (p.projection && !project))
    throw nb::value_error("a gradient's array is missing for a weight that is there");
  int64_t num = threads_for(batch, threads);
  SharedInputs given(to.inputs, 4 * H, p.inputs.features, num);
  Shared recurs(recur, 4 * H * p.out, num), projects(project, p.out * H, num);
  Shared peeps(peep, 3 * H, num), input_gains(dig, 4 * H, num), gains(dg, 4 * H, num);
  Shared cell_gains(dcg, H, num), cell_biases(dcb, H, num);
  in_threads(p.lengths, batch, threads, [&](const int64_t *rows, int64_t number, int64_t thread) {
    LstmBackward own = to;
    own.inputs = given.part(thread);
    own.drecurrent = recurs.part(thread), own.dprojection = projects.part(thread);
    own.dpeepholes = peeps.part(thread), own.dinput_gain = input_gains.part(thread), own.dgain = gains.part(thread);
    own.dcell_gain = cell_gains.part(thread), own.dcell_bias = cell_biases.part(thread);
    chosen->lstm_backward[half](p, own, rows, number);
  });
}

Gru gru(const Array &x, const Array &weight, const Array &bias, const Array &recurrent, const Array &recurrent_bias,
        const Array &h0, const Lengths &lengths, bool reset_after) {
  int64_t batch = size_at("x", x, 0), hidden = size_at("h0", h0, 1);
  Gru p;
  p.steps = size_at("x", x, 1), p.hidden = hidden, p.reset_after = reset_after;
  p.inputs = inputs(x, weight, bias, 3 * hidden);
  p.recurrent = floats("recurrent", recurrent, {3 * hidden, hidden});
  p.bias = floats("recurrent_bias", recurrent_bias, {3 * hidden});
  p.h0 = floats("h0", h0, {batch, hidden});
  p.lengths = checked(lengths, batch, p.steps);
  return p;
}

int64_t gru_kept(int64_t hidden, bool half) {
  Gru p{};
  p.hidden = hidden;
  return floats_for(chosen->gru_kept(p), half);
}

void gru_forward(const Array &x, const Array &weight, const Array &bias, const Array &recurrent,
                 const Array &recurrent_bias, const Array &h0, const Lengths &lengths, bool reset_after, const Array &y,
                 const Array &h, const Maybe &kept, bool half, int threads) {
  Gru p = gru(x, weight, bias, recurrent, recurrent_bias, h0, lengths, reset_after);
  int64_t batch = size_at("x", x, 0);
  GruForward to;
  to.y = floats("y", y, {batch, p.steps, p.hidden});
  to.h = floats("h", h, {batch, p.hidden});
  to.kept = floats("kept", kept, {batch, p.steps, floats_for(chosen->gru_kept(p), half)});
  in_threads(p.lengths, batch, threads,
             [&](const int64_t *rows, int64_t number, int64_t) { chosen->gru_forward[half](p, to, rows, number); });
}

void gru_backward(const Array &x, const Array &weight, const Array &bias, const Array &recurrent,
                  const Array &recurrent_bias, const Array &h0, const Lengths &lengths, bool reset_after,
                  const Array &kept, const Array &y, const Array &dy, const Maybe &dh, const Maybe &dx,
                  const Array &dweight, const Array &dbias, const Array &drecurrent, const Array &drecurrent_bias,
                  const Maybe &dh0, bool half, int threads) {
  Gru p = gru(x, weight, bias, recurrent, recurrent_bias, h0, lengths, reset_after);
  int64_t batch = size_at("x", x, 0), H = p.hidden, T = p.steps;
  GruBackward to;
  to.kept = floats("kept", kept, {batch, T, floats_for(chosen->gru_kept(p), half)});
  to.y = floats("y", y, {batch, T, H});
  to.dy = floats("dy", dy, {batch, T, H});
  to.dh = floats("dh", dh, {batch, H});
  to.inputs = input_gradients(x, 3 * H, dx, dweight, dbias);
  to.dh0 = floats("dh0", dh0, {batch, H});
  int64_t num = threads_for(batch, threads);
  SharedInputs given(to.inputs, 3 * H, p.inputs.features, num);
  Shared recurs(floats("drecurrent", drecurrent, {3 * H, H}), 3 * H * H, num);
  Shared biases(floats("drecurrent_bias", drecurrent_bias, {3 * H}), 3 * H, num);
  in_threads(p.lengths, batch, threads, [&](const int64_t *rows, int64_t number, int64_t thread) {
    GruBackward own = to;
    own.inputs = given.part(thread), own.drecurrent = recurs.part(thread), own.dbias = biases.part(thread);
    chosen->gru_backward[half](p, own, rows, number);
  });
}

Rnn rnn(const Array &x, const Array &weight, const Array &bias, const Array &recurrent, const Array &recurrent_bias,
        const Array &h0, const Lengths &lengths, bool relu) {
  int64_t batch = size_at("x", x, 0), hidden = size_at("h0", h0, 1);
  Rnn p;
  p.steps = size_at("x", x, 1), p.hidden = hidden, p.relu = relu;
  p.inputs = inputs(x, weight, bias, hidden);
  p.bias = together(bias, recurrent_bias, hidden), p.inputs.bias = p.bias.data();
  p.recurrent = floats("recurrent", recurrent, {hidden, hidden});
  p.h0 = floats("h0", h0, {batch, hidden});
  p.lengths = checked(lengths, batch, p.steps);
  return p;
}

void rnn_forward(const Array &x, const Array &weight, const Array &bias, const Array &recurrent,
                 const Array &recurrent_bias, const Array &h0, const Lengths &lengths, bool relu, const Array &y,
                 const Array &h, bool half, int threads) {
  Rnn p = rnn(x, weight, bias, recurrent, recurrent_bias, h0, lengths, relu);
  int64_t batch = size_at("x", x, 0);
  RnnForward to{floats("y", y, {batch, p.steps, p.hidden}), floats("h", h, {batch, p.hidden})};
  in_threads(p.lengths, batch, threads,
             [&](const int64_t *rows, int64_t number, int64_t) { chosen->rnn_forward[half](p, to, rows, number); });
}

void rnn_backward(const Array &x, const Array &weight, const Array &bias, const Array &recurrent,
                  const Array &recurrent_bias, const Array &h0, const Lengths &lengths, bool relu, const Array &y,
                  const Array &dy, const Maybe &dh, const Maybe &dx, const Array &dweight, const Array &dbias,
                  const Array &drecurrent, const Maybe &dh0, bool half, int threads) {
  Rnn p = rnn(x, weight, bias, recurrent, recurrent_bias, h0, lengths, relu);
  int64_t batch = size_at("x", x, 0), H = p.hidden, T = p.steps;
  RnnBackward to;
  to.y = floats("y", y, {batch, T, H}), to.dy = floats("dy", dy, {batch, T, H});
  to.dh = floats("dh", dh, {batch, H}), to.dh0 = floats("dh0", dh0, {batch, H});
  to.inputs = input_gradients(x, H, dx, dweight, dbias);
  int64_t num = threads_for(batch, threads);
  SharedInputs given(to.inputs, H, p.inputs.features, num);
  Shared recurs(floats("drecurrent", drecurrent, {H, H}), H * H, num);
  in_threads(p.lengths, batch, threads, [&](const int64_t *rows, int64_t number, int64_t thread) {
    RnnBackward own = to;
    own.inputs = given.part(thread), own.drecurrent = recurs.part(thread);
    chosen->rnn_backward[half](p, own, rows, number);
  });
}

Scan scan(const Array &a, const Array &b, const Array &h0, const Lengths &lengths, bool gated) {
  int64_t batch = size_at("a", a, 0), steps = size_at("a", a, 1), hidden = size_at("h0", h0, 1);
  Scan p;
  p.steps = steps, p.hidden = hidden, p.gated = gated;
  p.a = floats("a", a, {batch, steps, hidden});
  p.b = floats("b", b, {batch, steps, hidden});
  p.h0 = floats("h0", h0, {batch, hidden});
  p.lengths = checked(lengths, batch, steps);
  return p;
}

void scan_forward(const Array &a, const Array &b, const Array &h0, const Lengths &lengths, bool gated, const Array &y,
                  const Array &h, int threads) {
  Scan p = scan(a, b, h0, lengths, gated);
  int64_t batch = size_at("a", a, 0);
  float *to_y = floats("y", y, {batch, p.steps, p.hidden}), *to_h = floats("h", h, {batch, p.hidden});
  in_threads(p.lengths, batch, threads,
             [&](const int64_t *rows, int64_t number, int64_t) { chosen->scan_forward(p, to_y, to_h, rows, number); });
}

void scan_backward(const Array &a, const Array &b, const Array &h0, const Lengths &lengths, bool gated, const Array &y,
                   const Array &dy, const Maybe &dh, const Array &da, const Array &db, const Maybe &dh0, int threads) {
  Scan p = scan(a, b, h0, lengths, gated);
  int64_t batch = size_at("a", a, 0), H = p.hidden, T = p.steps;
  const float *from_y = floats("y", y, {batch, T, H}), *from_dy = floats("dy", dy, {batch, T, H});
  const float *from_dh = floats("dh", dh, {batch, H});
  float *to_a = floats("da", da, {batch, T, H}), *to_b = floats("db", db, {batch, T, H});
  float *to_h0 = floats("dh0", dh0, {batch, H});
  in_threads(p.lengths, batch, threads, [&](const int64_t *rows, int64_t number, int64_t) {
    chosen->scan_backward(p, from_y, from_dy, from_dh, to_a, to_b, to_h0, rows, number);
  });
}

Rotation rotation(const Array &factor, const Array &inputs, const Array &h0, const Lengths &lengths) {
  int64_t batch = size_at("inputs", inputs, 0), steps = size_at("inputs", inputs, 1),
          hidden = size_at("factor", factor, 1);
  Rotation p;
  p.steps = steps, p.hidden = hidden;
  p.factor = floats("factor", factor, {2, hidden});
  p.inputs = floats("inputs", inputs, {batch, steps, 2 * hidden});
  p.h0 = floats("h0", h0, {batch, 2 * hidden});
  p.lengths = checked(lengths, batch, steps);
  return p;
}

void rotate_forward(const Array &factor, const Array &inputs, const Array &h0, const Lengths &lengths, const Array &y,
                    const Array &h, int threads) {
  Rotation p = rotation(factor, inputs, h0, lengths);
  int64_t batch = size_at("inputs", inputs, 0);
  float *to_y = floats("y", y, {batch, p.steps, 2 * p.hidden}), *to_h = floats("h", h, {batch, 2 * p.hidden});
  in_threads(p.lengths, batch, threads, [&](const int64_t *rows, int64_t number, int64_t) {
    chosen->rotate_forward(p, to_y, to_h, rows, number);
  });
}

void rotate_backward(const Array &factor, const Array &inputs, const Array &h0, const Lengths &lengths, const Array &y,
                     const Array &dy, const Maybe &dh, const Array &dfactor, const Array &dinputs, const Maybe &dh0,
                     int threads) {
  Rotation p = rotation(factor, inputs, h0, lengths);
  int64_t batch = size_at("inputs", inputs, 0), H = p.hidden, T = p.steps;
  const float *from_y = floats("y", y, {batch, T, 2 * H}), *from_dy = floats("dy", dy, {batch, T, 2 * H});
  const float *from_dh = floats("dh", dh, {batch, 2 * H});
  float *to = floats("dinputs", dinputs, {batch, T, 2 * H}), *to_h0 = floats("dh0", dh0, {batch, 2 * H});
  Shared factors(floats("dfactor", dfactor, {2, H}), 2 * H, std::max(1, threads));
  in_threads(p.lengths, batch, threads, [&](const int64_t *rows, int64_t number, int64_t thread) {
    chosen->rotate_backward(p, from_y, from_dy, from_dh, to, to_h0, factors.part(thread), rows, number);
  });
}

// The rows of a product are shared out over threads.
template <class Work>
void over_rows(int64_t rows, int threads, Work work) {
  nb::gil_scoped_release unlocked;
  int64_t num = std::max<int64_t>(1, std::min<int64_t>(threads, rows / 12));
  on_threads(num, [&](int64_t k) { work(rows * k / num, rows * (k + 1) / num); });
}

void multiply_transposed(const Array &a, const Array &b, const Maybe &bias, const Array &out, bool half, int threads) {
  Product p{size_at("a", a, 0), size_at("a", a, 1), size_at("b", b, 0), nullptr, nullptr, nullptr, nullptr};
  p.a = a.data(), p.b = floats("b", b, {p.columns, p.depth}), p.bias = floats("bias", bias, {p.columns});
  floats("a", a, {p.rows, p.depth});
  p.out = floats("out", out, {p.rows, p.columns});
  if (p.depth == 0) throw nb::value_error("a: no columns");
  over_rows(p.rows, threads, [&](int64_t from, int64_t to) { chosen->multiply_transposed[half](p, from, to); });
}

void multiply_plain(const Array &a, const Array &b, const Array &out, bool half, int threads) {
  Product p{size_at("a", a, 0), size_at("a", a, 1), size_at("b", b, 1), nullptr, nullptr, nullptr, nullptr};
  p.a = floats("a", a, {p.rows, p.depth}), p.b = floats("b", b, {p.depth, p.columns});
  p.out = floats("out", out, {p.rows, p.columns});
  over_rows(p.rows, threads, [&](int64_t from, int64_t to) { chosen->multiply_plain[half](p, from, to); });
}

void multiply_turned(const Array &a, const Array &b, const Array &out, bool half, int threads) {
  Product p{size_at("a", a, 1), size_at("a", a, 0), size_at("b", b, 1), nullptr, nullptr, nullptr, nullptr};
  p.a = floats("a", a, {p.depth, p.rows}), p.b = floats("b", b, {p.depth, p.columns});
  p.out = floats("out", out, {p.rows, p.columns});
  if (p.depth == 0) std::fill_n(p.out, p.rows * p.columns, 0.0f);
  over_rows(p.rows, threads, [&](int64_t from, int64_t to) { chosen->multiply_turned[half](p, from, to); });
}

// Layers for one step at a time; they keep copies of their weights.

using LayerPtr = std::shared_ptr<Layer>;

LayerPtr made(const LayerWeights &l) { return LayerPtr(chosen->make_layer(l)); }

// What all kinds with gates have: weights of the input and biases, as many for each gate.
LayerWeights gated(LayerWeights::Kind kind, bool half, const Array &input, const Array &bias, int64_t gates) {
  LayerWeights l{};
  l.kind = kind, l.half = half, l.features = size_at("input", input, 1);
  int64_t rows = size_at("bias", bias, 0);
  if (rows % gates || rows == 0) throw nb::value_error("bias: not a whole number of units");
  l.input = floats("input", input, {rows, l.features});
  l.bias = floats("bias", bias, {rows});
  return l;
}

LayerPtr lstm_layer(bool half, const Array &input, const Array &bias, const Array &recurrent, const Maybe &input_gain,
                    const Maybe &projection, const Maybe &peepholes, const Maybe &gain, const Maybe &cell_gain,
                    const Maybe &cell_bias, float epsilon) {
  LayerWeights l = gated(LayerWeights::LSTM, half, input, bias, 4);
  int64_t hidden = size_at("bias", bias, 0) / 4, out = size_at("recurrent", recurrent, 1);
  if (!projection && out != hidden) throw nb::value_error("recurrent: not as wide as the cell, without a projection");
  l.lstm.hidden = hidden, l.lstm.out = out, l.lstm.epsilon = epsilon;
  l.lstm.recurrent = floats("recurrent", recurrent, {4 * hidden, out});
  l.lstm.projection = floats("projection", projection, {out, hidden});
  l.lstm.peepholes = floats("peepholes", peepholes, {3, hidden});
  l.lstm.gain = floats("gain", gain, {4 * hidden});
  l.lstm.cell_gain = floats("cell_gain", cell_gain, {hidden});
  l.lstm.cell_bias = floats("cell_bias", cell_bias, {hidden});
  l.lstm.input_gain = floats("input_gain", input_gain, {4 * hidden}), l.lstm.inputs.bias = l.bias;
  if (bool(gain) != bool(cell_gain) || bool(gain) != bool(cell_bias) || bool(gain) != bool(input_gain))
    throw nb::value_error("input_gain, gain, cell_gain and cell_bias: give all or none");
  return made(l);
}

LayerPtr gru_layer(bool half, const Array &input, const Array &bias, const Array &recurrent,
                   const Array &recurrent_bias, bool reset_after) {
  LayerWeights l = gated(LayerWeights::GRU, half, input, bias, 3);
  l.gru.hidden = size_at("bias", bias, 0) / 3, l.gru.reset_after = reset_after;
  l.gru.recurrent = floats("recurrent", recurrent, {3 * l.gru.hidden, l.gru.hidden});
  l.gru.bias = floats("recurrent_bias", recurrent_bias, {3 * l.gru.hidden});
  return made(l);
}

LayerPtr rnn_layer(bool half, const Array &input, const Array &bias, const Array &recurrent, bool relu) {
  LayerWeights l = gated(LayerWeights::RNN, half, input, bias, 1);
  l.rnn.hidden = size_at("bias", bias, 0), l.rnn.relu = relu;
  l.rnn.recurrent = floats("recurrent", recurrent, {l.rnn.hidden, l.rnn.hidden});
  return made(l);
}

LayerPtr min_gru_layer(bool half, const Array &input, const Array &bias) {
  LayerWeights l = gated(LayerWeights::MIN_GRU, half, input, bias, 2);
  l.min.hidden = size_at("bias", bias, 0) / 2;
  return made(l);
}

LayerPtr min_lstm_layer(bool half, const Array &input, const Array &bias) {
  LayerWeights l = gated(LayerWeights::MIN_LSTM, half, input, bias, 3);
  l.min.hidden = size_at("bias", bias, 0) / 3;
  return made(l);
}

LayerPtr lru_layer(bool half, const Array &input, const Array &scale, const Array &factor, const Array &out_of,
                   const Array &past) {
  LayerWeights l{};
  l.kind = LayerWeights::LRU, l.half = half, l.features = size_at("input", input, 1);
  l.lru.hidden = size_at("scale", scale, 0), l.lru.out = size_at("out_of", out_of, 0);
  l.input = floats("input", input, {2 * l.lru.hidden, l.features});
  l.lru.scale = floats("scale", scale, {l.lru.hidden});
  l.lru.factor = floats("factor", factor, {2, l.lru.hidden});
  l.lru.out_of = floats("out_of", out_of, {l.lru.out, 2 * l.lru.hidden});
  l.lru.past = floats("past", past, {l.lru.out, l.features});
  return made(l);
}

LayerPtr cfc_layer(bool half, const Array &input, const Array &bias, const Array &heads, const Array &heads_bias,
                   bool elapsed) {
  LayerWeights l = gated(LayerWeights::CFC, half, input, bias, 1);
  int64_t units = size_at("heads_bias", heads_bias, 0), hidden = units / 4;
  if (units % 4 || units == 0) throw nb::value_error("heads_bias: not a whole number of units");
  if (l.features < hidden) throw nb::value_error("input: not as wide as the state");
  l.features += elapsed - hidden;
  l.cfc.hidden = hidden, l.cfc.backbone = size_at("bias", bias, 0), l.cfc.elapsed = elapsed;
  l.cfc.heads = floats("heads", heads, {4 * hidden, l.cfc.backbone});
  l.cfc.heads_bias = floats("heads_bias", heads_bias, {4 * hidden});
  return made(l);
}

LayerPtr memoryless_layer(int64_t features) {
  if (features < 0) throw nb::value_error("features: below 0");
  LayerWeights l{};
  l.kind = LayerWeights::MEMORYLESS, l.features = features;
  return made(l);
}

LayerPtr standard_layer(const Array &mean, const Array &deviation) {
  LayerWeights l{};
  l.kind = LayerWeights::STANDARD, l.features = size_at("mean", mean, 0);
  l.input = floats("mean", mean, {l.features}), l.bias = floats("deviation", deviation, {l.features});
  return made(l);
}

LayerPtr linear_layer(bool half, const Array &weight, const Array &bias) {
  LayerWeights l{};
  l.kind = LayerWeights::LINEAR, l.half = half, l.features = size_at("weight", weight, 1);
  l.out = size_at("bias", bias, 0);
  l.input = floats("weight", weight, {l.out, l.features}), l.bias = floats("bias", bias, {l.out});
  return made(l);
}

LayerPtr zoneout_layer(const LayerPtr &layer, const std::vector<float> &shares) {
  if (layer->state_sizes.empty() || layer->state_sizes[0] < layer->out)
    throw nb::value_error("layer: its output is not the first tensor of its state");
  if (shares.size() < layer->state_sizes.size())
    throw nb::value_error(
        ("shares: expected " + std::to_string(layer->state_sizes.size()) + ", got " + std::to_string(shares.size()))
            .c_str());
  LayerWeights l{};
  l.kind = LayerWeights::ZONEOUT, l.layers = {layer}, l.shares = shares;
  return made(l);
}

LayerPtr residual_layer(const LayerPtr &layer) {
  if (layer->features != layer->out)
    throw nb::value_error(("layer: takes " + std::to_string(layer->features) + " features and gives " +
                           std::to_string(layer->out) + ", which can't be added")
                              .c_str());
  LayerWeights l{};
  l.kind = LayerWeights::RESIDUAL, l.layers = {layer};
  return made(l);
}

LayerPtr stack_layer(const std::vector<LayerPtr> &layers) {
  if (layers.empty() || std::count(layers.begin(), layers.end(), nullptr))
    throw nb::value_error("layers: none, or None among them");
  for (size_t i = 1; i < layers.size(); ++i)
    if (layers[i]->features != layers[i - 1]->out)
      throw nb::value_error(("layers: one gives " + std::to_string(layers[i - 1]->out) + " features, the next takes " +
                             std::to_string(layers[i]->features))
                                .c_str());
  LayerWeights l{};
  l.kind = LayerWeights::STACK, l.layers = layers;
  return made(l);
}

using Vector = nb::ndarray<float, nb::numpy, nb::ndim<1>>;

struct Free {
  void operator()(float *p) const { std::free(p); }
};

// One sequence under way: its state, and the output that every step overwrites.
class Session {
 public:
  explicit Session(const LayerPtr &layer) : layer_(layer), total_(layer->state_size()) {
    if (total_ == 0) throw nb::value_error("layer: it has no memory");
    void *p = nullptr;
    if (posix_memalign(&p, 64, total_ * sizeof(float))) throw std::bad_alloc();
    state_.reset(static_cast<float *>(p));
    reset();
    y_.resize(layer_->out);
    shown_ = nb::cast(Vector(y_.data(), {y_.size()}, nb::handle()), nb::rv_policy::reference);
  }

  Session(const Session &) = delete;

  void reset() { std::fill_n(state_.get(), total_, 0.0f); }

  nb::object step(nb::handle x) {
    Py_buffer view;
    if (PyObject_GetBuffer(x.ptr(), &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)) throw nb::python_error();
    bool good = view.ndim == 1 && view.shape[0] == layer_->features && view.format && view.format[0] == 'f' &&
                view.format[1] == 0;
    if (good) {
      const float *y = layer_->step(static_cast<const float *>(view.buf), state_.get());
      std::memcpy(y_.data(), y, y_.size() * sizeof(float));
    }
    PyBuffer_Release(&view);
    if (!good)
      throw nb::value_error(
          ("x: expected " + std::to_string(layer_->features) + " float32 numbers in one contiguous row").c_str());
    return shown_;
  }

  nb::bytes state() const { return nb::bytes(reinterpret_cast<const char *>(state_.get()), total_ * sizeof(float)); }

  std::vector<int64_t> places() const {
    std::vector<int64_t> found;
    layer_->places(found, 0);
    return found;
  }

  void set_state(const nb::bytes &state) {
    if (static_cast<int64_t>(state.size()) != total_ * static_cast<int64_t>(sizeof(float)))
      throw nb::value_error("state: of another core");
    std::memcpy(state_.get(), state.c_str(), state.size());
  }

 private:
  LayerPtr layer_;
  int64_t total_;
  std::unique_ptr<float, Free> state_;
  std::vector<float> y_;
  nb::object shown_;
};

}  // namespace

NB_MODULE(native, m) {
  m.doc() = "Recurrences on raw buffers.";
  m.def("levels", level_names, "Instruction sets that this machine has, slowest first.");
  m.def("level", [] { return std::string(chosen->name); }, "The one in use.");
  m.def("choose", choose, nb::arg("name"));
  m.def("dots", [] { return chosen->dots; }, "Whether pairs of bfloat16 are multiplied faster than floats.");
  m.def("finite", all_finite, "Whether all of an array's floats are.");
  m.def("scratch", scratch, nb::arg("shape"), "An array of floats, whatever they are.");
  m.def("lstm_kept", lstm_kept, nb::arg("hidden"), nb::arg("normal"), nb::arg("half"));
  m.def("lstm_forward", lstm_forward);
  m.def("lstm_backward", lstm_backward);
  m.def("gru_kept", gru_kept, nb::arg("hidden"), nb::arg("half"));
  m.def("gru_forward", gru_forward);
  m.def("gru_backward", gru_backward);
  m.def("rnn_forward", rnn_forward);
  m.def("rnn_backward", rnn_backward);
  m.def("scan_forward", scan_forward);
  m.def("scan_backward", scan_backward);
  m.def("rotate_forward", rotate_forward);
  m.def("rotate_backward", rotate_backward);
  m.def("multiply_transposed", multiply_transposed);
  m.def("multiply_plain", multiply_plain);
  m.def("multiply_turned", multiply_turned);
  nb::class_<Layer>(m, "Layer").def_ro("features", &Layer::features).def_ro("out", &Layer::out);
  m.def("lstm_layer", lstm_layer);
  m.def("gru_layer", gru_layer);
  m.def("rnn_layer", rnn_layer);
  m.def("min_gru_layer", min_gru_layer);
  m.def("min_lstm_layer", min_lstm_layer);
  m.def("lru_layer", lru_layer);
  m.def("cfc_layer", cfc_layer);
  m.def("memoryless_layer", memoryless_layer);
  m.def("standard_layer", standard_layer);
  m.def("linear_layer", linear_layer);
  m.def("zoneout_layer", zoneout_layer);
  m.def("residual_layer", residual_layer);
  m.def("stack_layer", stack_layer);
  nb::class_<Session>(m, "Session")
      .def(nb::init<const LayerPtr &>())
      .def("step", &Session::step)
      .def("reset", &Session::reset)
      .def("places", &Session::places)
      .def_prop_rw("state", &Session::state, &Session::set_state);
}
