// Vectors of floats as the compiler's own types, so that one source serves every instruction set.
#pragma once

#include <cstdint>
#include <cstring>

namespace LEVEL {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Floats __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

inline Floats load(const float *p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float *p, Floats v) { std::memcpy(p, &v, sizeof v); }

inline Floats all(float value) { return value - Floats{}; }

inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline Floats bits(Ints v) {
  Floats f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}

// e^x to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]. NaN stays NaN.
inline Floats exponential(Floats x) {
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer.
  Floats held = larger(smaller(x, all(88.0f)), all(-87.0f));
  Floats n = (held * 1.44269504f + magic) - magic;
  Floats r = held - n * 0.693145752f;
  r = r - n * 1.42860677e-6f;
  Floats p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats y = p * bits(power);
  return x == x ? y : x;
}

inline Floats sigmoid(Floats x) { return 1.0f / (1.0f + exponential(-x)); }

// Near nought by its odd series, where 1 - 2 / (e^2x + 1) would lose its digits.
inline Floats tanh(Floats x) {
  Floats far = 1.0f - 2.0f / (exponential(x + x) + 1.0f);
  Floats s = x * x;
  Floats near = all(-1382.0f / 155925);
  near = near * s + 62.0f / 2835;
  near = near * s - 17.0f / 315;
  near = near * s + 2.0f / 15;
  near = near * s - 1.0f / 3;
  near = (near * s) * x + x;
  return s < 0.0625f ? near : far;
}

inline float sum(Floats v) {
  float total = 0;
  for (int i = 0; i < WIDTH; ++i) total += v[i];
  return total;
}

}  // namespace LEVEL
