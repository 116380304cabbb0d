// Vectors of floats as the compiler's own types, so that one source serves every instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace LEVEL {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Floats __attribute__((vector_size(WIDTH * 4)));
#if defined(__AVX512BF16__)
constexpr bool DOTS = true;
#else
constexpr bool DOTS = false;
#endif

typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));

inline Floats load(const float *p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline void store(float *p, Floats v) { std::memcpy(p, &v, sizeof v); }

// Past the caches, to whole lines; `arrive` before others read it.
inline void store_far(float *p, Floats v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#else
  store(p, v);
#endif
}

inline void arrive() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

inline Floats all(float value) { return value - Floats{}; }

inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

inline Floats bits(Ints v) {
  Floats f;
  std::memcpy(&f, &v, sizeof f);
  return f;
}

// The words of the lower halves of two vectors in turn, and of the upper ones.
template <size_t... I>
inline Ints mixed(Ints a, Ints b, int from, std::index_sequence<I...>) {
#if defined(__clang__)
  return from ? __builtin_shufflevector(a, b, (I % 2 * WIDTH + WIDTH / 2 + I / 2)...)
              : __builtin_shufflevector(a, b, (I % 2 * WIDTH + I / 2)...);
#else
  return __builtin_shuffle(a, b, Ints{static_cast<int32_t>(I % 2 * WIDTH + I / 2)...} + from);
#endif
}

inline Ints mixed_low(Ints a, Ints b) { return mixed(a, b, 0, std::make_index_sequence<WIDTH>()); }

inline Ints mixed_high(Ints a, Ints b) { return mixed(a, b, WIDTH / 2, std::make_index_sequence<WIDTH>()); }

// Numbers rounded to bfloat16, to the nearest, ties to even, as the upper halves of words; NaN stays NaN.
inline Ints rounded(Floats x) {
  Ints word;
  std::memcpy(&word, &x, sizeof word);
  Ints up = word + 0x7fff + ((word >> 16) & 1);
  return (x == x ? up : word | 0x400000) & static_cast<int32_t>(0xffff0000);
}

// Pairs of numbers in bfloat16, the first in the lower half.
inline void store_pairs(uint32_t *to, Floats first, Floats second) {
  Ints low = rounded(first), word;
  word = ((low >> 16) & 0xffff) | rounded(second);
  std::memcpy(to, &word, sizeof word);
}

// Numbers in bfloat16, one after the other.
typedef uint16_t Halves __attribute__((vector_size(WIDTH * 2)));

inline void store_halves(uint16_t *to, Floats v) {
#if defined(__AVX512BF16__)
  auto half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(v));
#else
  Halves half = __builtin_convertvector((rounded(v) >> 16) & 0xffff, Halves);
#endif
  std::memcpy(to, &half, sizeof half);
}

inline Floats load_halves(const uint16_t *from) {
  Halves half;
  std::memcpy(&half, from, sizeof half);
  return bits(__builtin_convertvector(half, Ints) << 16);
}

// sums + both products of the pairs, in float32.
inline Floats added_pairs(Floats sums, uint32_t a, const uint32_t *w) {
  Ints word;
  std::memcpy(&word, w, sizeof word);
#if defined(__AVX512BF16__)
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums),
                                                   reinterpret_cast<__m512bh>(_mm512_set1_epi32(a)),
                                                   reinterpret_cast<__m512bh>(word)));
#else
  Ints value = static_cast<int32_t>(a) - Ints{};
  const int32_t upper = static_cast<int32_t>(0xffff0000);
  return sums + bits(value << 16) * bits(word << 16) + bits(value & upper) * bits(word & upper);
#endif
}

// e^x as `scale` + `more`: 2^n, and 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; x is held in [-87, 87].
struct Power {
  Floats scale, more;
};

__attribute__((always_inline)) inline Power power(Floats x) {
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer.
  Floats held = larger(smaller(x, all(87.0f)), all(-87.0f));
  Floats n = (held * 1.44269504f + magic) - magic;
  Floats r = held - n * 0.693145752f;
  r = r - n * 1.42860677e-6f;
  Floats p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = (p * r) * r + r;
  Floats scale = bits((__builtin_convertvector(n, Ints) + 127) << 23);
  return {scale, p * scale};
}

// e^x - 1, near nought too. NaN stays NaN.
__attribute__((always_inline)) inline Floats exponential_less_one(Floats x) {
  Power e = power(x);
  Floats y = e.more + (e.scale - 1.0f);
  return x == x ? y : x;
}

// Where numbers end below: what would be smaller is nought, for multiplied by what is huge it would count.
__attribute__((always_inline)) inline Floats vanishing(Floats x, Floats y) { return x < -87.0f ? Floats{} : y; }

// e^x, exact to a share of itself. NaN stays NaN.
__attribute__((always_inline)) inline Floats exponential(Floats x) {
  Power e = power(x);
  Floats y = e.more + e.scale;
  return vanishing(x, x == x ? y : x);
}

// 1 / x for x from 1 to 2^126, to a unit or two in the last place.
__attribute__((always_inline)) inline Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
  Floats guess = reinterpret_cast<Floats>(_mm512_maskz_rcp14_ps(0xffff, reinterpret_cast<__m512>(x)));
  return guess * (2.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

__attribute__((always_inline)) inline Floats sigmoid(Floats x) {
  return vanishing(x, reciprocal(2.0f + exponential_less_one(-x)));
}

__attribute__((always_inline)) inline Floats tanh(Floats x) {
  Floats e = exponential_less_one(x + x);
  return e * reciprocal(e + 2.0f);
}

// By halves: each sum waits for few others.
inline float sum(Floats v) {
  float some[WIDTH];
  std::memcpy(some, &v, sizeof some);
#pragma GCC unroll 4
  for (int half = WIDTH / 2; half; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) some[i] += some[i + half];
  return some[0];
}

}  // namespace LEVEL
