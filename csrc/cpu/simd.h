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
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = sizeof(void*) == 8 && kVectorBytes == 16 ? 16 : 8;
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

#if defined(__AVX512F__)
FASTDL_INLINE __mmask16 first_lanes16(int64_t n) { return __mmask16((1u << n) - 1); }
FASTDL_INLINE __mmask8 first_lanes8(int64_t n) { return __mmask8((1u << n) - 1); }
FASTDL_INLINE Vec<float> load_mask(const float* p, int64_t n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(first_lanes16(n), p);
}
FASTDL_INLINE Vec<double> load_mask(const double* p, int64_t n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(first_lanes8(n), p);
}
FASTDL_INLINE void store_mask(float* p, Vec<float> v, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes16(n), (__m512)v);
}
FASTDL_INLINE void store_mask(double* p, Vec<double> v, int64_t n) {
  _mm512_mask_storeu_pd(p, first_lanes8(n), (__m512d)v);
}
FASTDL_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
FASTDL_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
FASTDL_INLINE Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm512_sqrt_ps((__m512)x); }
FASTDL_INLINE Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm512_sqrt_pd((__m512d)x); }
#elif defined(__AVX2__)
alignas(32) constexpr int32_t kMask32[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                             0,  0,  0,  0,  0,  0,  0,  0};
alignas(32) constexpr int64_t kMask64[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
FASTDL_INLINE __m256i first_lanes8(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask32 + 8 - n));
}
FASTDL_INLINE __m256i first_lanes4(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask64 + 4 - n));
}
FASTDL_INLINE Vec<float> load_mask(const float* p, int64_t n) {
  return (Vec<float>)_mm256_maskload_ps(p, first_lanes8(n));
}
FASTDL_INLINE Vec<double> load_mask(const double* p, int64_t n) {
  return (Vec<double>)_mm256_maskload_pd(p, first_lanes4(n));
}
FASTDL_INLINE void store_mask(float* p, Vec<float> v, int64_t n) {
  _mm256_maskstore_ps(p, first_lanes8(n), (__m256)v);
}
FASTDL_INLINE void store_mask(double* p, Vec<double> v, int64_t n) {
  _mm256_maskstore_pd(p, first_lanes4(n), (__m256d)v);
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
FASTDL_INLINE Vec<T> load_mask(const T* p, int64_t n) {
  Vec<T> v{};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <class T>
FASTDL_INLINE void store_mask(T* p, Vec<T> v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
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
template <class T>
FASTDL_INLINE T fma(T a, T b, T c) {
  return a * b + c;  // the x86-64 baseline has no fma: rounded twice
}
template <class V>
FASTDL_INLINE V sqrt(V x) {
  for (int i = 0; i < int(sizeof x / sizeof x[0]); ++i)
    x[i] = sizeof x[0] == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
  return x;
}
#endif
#endif

/// The first n lanes (0 <= n <= lanes); the others are zero, and no memory beyond them is touched.
template <class T>
FASTDL_INLINE Vec<T> load(const T* p, int64_t n) {
  return n >= kLanes<T> ? load(p) : load_mask(p, n);
}
template <class T>
FASTDL_INLINE void store(T* p, Vec<T> v, int64_t n) {
  if (n >= kLanes<T>)
    store(p, v);
  else
    store_mask(p, v, n);
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
/// max(x, 0) that keeps NaN.
template <class V>
FASTDL_INLINE V relu(V x) {
  return max(V{}, x);
}

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
