#pragma once
// Vectors as wide as the ISA this file is compiled for: one source, every width.
//
// Compiler vector types give + - * / and comparisons; the functions below add what they lack.  The
// build forbids contraction (-ffp-contract=off), so a product and a sum are fused where the source
// says fma and nowhere else: that is what makes AVX2, AVX-512 and NEON agree bit for bit.
#include <cstdint>
#include <type_traits>

#include "core/view.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fastdl::FASTDL_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

/// The signed integer as wide as T: what a comparison of Vec<T> yields per lane (0 or -1).
template <class T>
using IntOf = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;

template <class T>
FASTDL_INLINE Vec<T> broadcast(T x) {
  return x - Vec<T>{};  // x + 0 would turn -0 into 0
}

template <class T>
FASTDL_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::unaligned*>(p);
}
template <class T>
FASTDL_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::unaligned*>(p) = v;
}

/// A prefix of the lanes, for the ends of rows: first_lanes<T>(n) is the first n, n of any size.
/// A masked load gives zero elsewhere, and no memory beyond the prefix is touched.
#if defined(__AVX512F__)
template <class T>
using Mask = std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>;
template <class T>
FASTDL_INLINE Mask<T> first_lanes(int64_t n) {
  return n >= kLanes<T> ? Mask<T>(-1) : n <= 0 ? Mask<T>(0) : Mask<T>((1u << n) - 1);
}
FASTDL_INLINE Vec<float> load_masked(const float* p, __mmask16 m) {
  return (Vec<float>)_mm512_maskz_loadu_ps(m, p);
}
FASTDL_INLINE Vec<double> load_masked(const double* p, __mmask8 m) {
  return (Vec<double>)_mm512_maskz_loadu_pd(m, p);
}
FASTDL_INLINE void store_masked(float* p, Vec<float> v, __mmask16 m) {
  _mm512_mask_storeu_ps(p, m, (__m512)v);
}
FASTDL_INLINE void store_masked(double* p, Vec<double> v, __mmask8 m) {
  _mm512_mask_storeu_pd(p, m, (__m512d)v);
}
FASTDL_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
FASTDL_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
FASTDL_INLINE Vec<float> sqrt(Vec<float> x) {
  return (Vec<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
}
FASTDL_INLINE Vec<double> sqrt(Vec<double> x) {
  return (Vec<double>)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
}
#elif defined(__AVX2__)
template <class T>
struct Mask {
  __m256i bits;
};
template <class T>
FASTDL_INLINE Mask<T> first_lanes(int64_t n) {
  constexpr int L = kLanes<T>;
  alignas(32) static constexpr IntOf<T> kOnes[2 * L] = {
      -1, -1, -1, -1, L == 8 ? -1 : 0, L == 8 ? -1 : 0, L == 8 ? -1 : 0, L == 8 ? -1 : 0};
  const int64_t first = n >= L ? 0 : n <= 0 ? L : L - n;
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(kOnes + first))};
}
FASTDL_INLINE Vec<float> load_masked(const float* p, Mask<float> m) {
  return (Vec<float>)_mm256_maskload_ps(p, m.bits);
}
FASTDL_INLINE Vec<double> load_masked(const double* p, Mask<double> m) {
  return (Vec<double>)_mm256_maskload_pd(p, m.bits);
}
FASTDL_INLINE void store_masked(float* p, Vec<float> v, Mask<float> m) {
  _mm256_maskstore_ps(p, m.bits, (__m256)v);
}
FASTDL_INLINE void store_masked(double* p, Vec<double> v, Mask<double> m) {
  _mm256_maskstore_pd(p, m.bits, (__m256d)v);
}
FASTDL_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
FASTDL_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
FASTDL_INLINE Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm256_sqrt_ps((__m256)x); }
FASTDL_INLINE Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm256_sqrt_pd((__m256d)x); }
#else
template <class T>
struct Mask {
  int64_t lanes;
};
template <class T>
FASTDL_INLINE Mask<T> first_lanes(int64_t n) {
  return {n >= kLanes<T> ? kLanes<T> : n <= 0 ? 0 : n};
}
template <class T>
FASTDL_INLINE Vec<T> load_masked(const T* p, Mask<T> m) {
  Vec<T> v{};
  for (int64_t i = 0; i < m.lanes; ++i) v[i] = p[i];
  return v;
}
template <class T>
FASTDL_INLINE void store_masked(T* p, Vec<T> v, Mask<T> m) {
  for (int64_t i = 0; i < m.lanes; ++i) p[i] = v[i];
}
#if defined(__aarch64__)
FASTDL_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
FASTDL_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
FASTDL_INLINE Vec<float> sqrt(Vec<float> x) { return (Vec<float>)vsqrtq_f32((float32x4_t)x); }
FASTDL_INLINE Vec<double> sqrt(Vec<double> x) { return (Vec<double>)vsqrtq_f64((float64x2_t)x); }
#else
template <class V>
FASTDL_INLINE V fma(V a, V b, V c) {
  return a * b + c;  // the x86-64 baseline has no fma: rounded twice
}
FASTDL_INLINE Vec<float> sqrt(Vec<float> x) {
  for (int i = 0; i < kLanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
FASTDL_INLINE Vec<double> sqrt(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
}
#endif
#endif

/// The first n lanes (0 <= n <= lanes); the others are zero, and no memory beyond them is touched.
template <class T>
FASTDL_INLINE Vec<T> load(const T* p, int64_t n) {
  return n >= kLanes<T> ? load(p) : load_masked(p, first_lanes<T>(n));
}
template <class T>
FASTDL_INLINE void store(T* p, Vec<T> v, int64_t n) {
  if (n >= kLanes<T>)
    store(p, v);
  else
    store_masked(p, v, first_lanes<T>(n));
}

/// a where the mask (a comparison's result) is set, else b.
template <class T>
FASTDL_INLINE Vec<T> select(Vec<IntOf<T>> mask, Vec<T> a, Vec<T> b) {
  return mask ? a : b;
}
/// The larger of each lane; a NaN in b is kept, one in a is not (as vmaxps).
template <class V>
FASTDL_INLINE V max(V a, V b) {
  return a > b ? a : b;
}
// The compiler makes a comparison and a blend of the above; this is the one instruction.
#if defined(__AVX512F__)
FASTDL_INLINE Vec<float> max(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_maskz_max_ps(-1, (__m512)a, (__m512)b);
}
FASTDL_INLINE Vec<double> max(Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm512_maskz_max_pd(-1, (__m512d)a, (__m512d)b);
}
#elif defined(__AVX2__)
FASTDL_INLINE Vec<float> max(Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
}
FASTDL_INLINE Vec<double> max(Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm256_max_pd((__m256d)a, (__m256d)b);
}
#endif
/// max(x, 0) that keeps NaN.
template <class V>
FASTDL_INLINE V relu(V x) {
  return max(V{}, x);
}

/// x, but 0 where x is subnormal.  For state that decays: without gradients a moment would stay
/// subnormal for ever, and arithmetic on such numbers costs about a hundred cycles.
template <class T>
FASTDL_INLINE Vec<T> without_subnormals(Vec<T> x) {
  constexpr T kSmallest = sizeof(T) == 4 ? T(__FLT_MIN__) : T(__DBL_MIN__);
  return select<T>(max(x, -x) < broadcast(kSmallest), Vec<T>{}, x);
}

/// Keeps a broadcast in a register: folded into each fma as a memory operand it would cost one load
/// per use, and the load ports are what a register tile runs out of first.
template <class V>
FASTDL_INLINE V in_register(V x) {
#if defined(__AVX__)
  __asm__("" : "+v"(x));
#endif
  return x;
}

/// For lambdas given to unroll: inlined early, or the compiler keeps captured arrays in memory.
#define FASTDL_UNROLLED __attribute__((always_inline))

/// Calls f(integral_constant<int, i>) for i in 0..N-1, unrolled: an array indexed so stays in
/// registers, where a counted loop over it spills.
template <int I, int N, class F>
FASTDL_INLINE void unroll_from(F& f) {
  if constexpr (I < N) {
    f(std::integral_constant<int, I>{});
    unroll_from<I + 1, N>(f);
  }
}
template <int N, class F>
FASTDL_INLINE void unroll(F f) {
  unroll_from<0, N>(f);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
