#pragma once
// exp and log of vectors, below 1 ulp, and tanh, below 2, with the same bits on every ISA that has fma.
// Their constants are in core/math_constants.h.
#include "core/math_constants.h"
#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// c[0] + c[1] x + c[2] x^2 + ... by Horner's rule.
template <class T, int N>
FASTDL_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {
  Vec<T> p = broadcast(c[N - 1]);
  unroll<N - 1>([&](auto k) FASTDL_UNROLLED { p = fma(p, x, broadcast(c[N - 2 - k])); });
  return p;
}

/// Vec<T> as unsigned integers: logical shifts exist on every ISA, arithmetic ones of 64 bits not.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

/// p 2^n where `inside` is not below kExpMin, else 0; n is an integer in [-2 bias, bias + 1] and
/// `rounded` is n + kRound.  Rounded once.  A result below the normal range costs the hardware
/// ~100 cycles, and -inf is how users mask logits: so what is 0 in the end is never computed.
template <class T>
FASTDL_INLINE Vec<T> scale_by_power_of_2(Vec<T> p, Vec<T> n, Vec<T> rounded, Vec<T> inside) {
  using K = Constants<T>;
#if defined(__AVX512F__)
  (void)rounded;
  if constexpr (sizeof(T) == 4) {
    const auto keep = _mm512_cmp_ps_mask((__m512)inside, _mm512_set1_ps(K::kExpMin), _CMP_NLT_UQ);
    return (Vec<T>)_mm512_maskz_scalef_ps(keep, (__m512)p, (__m512)n);
  } else {
    const auto keep = _mm512_cmp_pd_mask((__m512d)inside, _mm512_set1_pd(K::kExpMin), _CMP_NLT_UQ);
    return (Vec<T>)_mm512_maskz_scalef_pd(keep, (__m512d)p, (__m512d)n);
  }
#else
  // In two factors, both normal or 0: the first product is exact.
  typedef Bits<T> V __attribute__((vector_size(kVectorBytes)));
  (void)n;
  const V zero = (V)broadcast(K::kRound) - Bits<T>(2 * K::kBias);
  const V sum = (V)rounded - zero, half = sum >> 1;
  const V below = (V)(inside < broadcast(K::kExpMin));
  const V rest = ((sum - half) << K::kMantissa) & ~below;
  return p * (Vec<T>)(half << K::kMantissa) * (Vec<T>)rest;
#endif
}

/// x[i] becomes e^x[i], for x <= kExpMax (or NaN), which all x <= 0 are: x = n ln 2 + r with
/// |r| <= ln 2 / 2, and e^x = 2^n e^r.  One e^x is a chain of 13 operations, each of which waits for
/// the one before, and longer than what a processor looks ahead: vectors go through it abreast.
template <class T, int N>
FASTDL_INLINE void exp_of_negative(Vec<T> (&x)[N]) {
  using K = Constants<T>;
  constexpr int kTerms = sizeof(K::kExp) / sizeof(T);
  const Vec<T> one = broadcast(T(1));
  Vec<T> given[N], rounded[N], n[N], r[N], p[N];
  unroll<N>([&](auto i) FASTDL_UNROLLED {
    given[i] = x[i];
#if !defined(__AVX512F__)
    x[i] = max(broadcast(K::kExpMin), x[i]);  // keeps the exponents in range
#endif
    rounded[i] = fma(x[i], broadcast(K::kLog2e), broadcast(K::kRound));
  });
  unroll<N>([&](auto i) FASTDL_UNROLLED { n[i] = rounded[i] - broadcast(K::kRound); });
  unroll<N>([&](auto i) FASTDL_UNROLLED { r[i] = fma(n[i], broadcast(-K::kLn2Hi), x[i]); });
  unroll<N>([&](auto i) FASTDL_UNROLLED { r[i] = fma(n[i], broadcast(-K::kLn2Lo), r[i]); });
  unroll<N>([&](auto i) FASTDL_UNROLLED { p[i] = broadcast(K::kExp[kTerms - 1]); });
  unroll<kTerms - 1>([&](auto k) FASTDL_UNROLLED {
    const Vec<T> c = broadcast(K::kExp[kTerms - 2 - k]);
    unroll<N>([&](auto i) FASTDL_UNROLLED { p[i] = fma(p[i], r[i], c); });
  });
  unroll<N>([&](auto i) FASTDL_UNROLLED { p[i] = fma(p[i], r[i], one); });
  unroll<N>([&](auto i) FASTDL_UNROLLED { p[i] = fma(p[i], r[i], one); });
  unroll<N>([&](auto i) FASTDL_UNROLLED {
    x[i] = scale_by_power_of_2<T>(p[i], n[i], rounded[i], given[i]);
  });
}
template <class T>
FASTDL_INLINE Vec<T> exp_of_negative(Vec<T> x) {
  Vec<T> v[1] = {x};
  exp_of_negative<T>(v);
  return v[0];
}

/// e^x.  exp(-inf) = 0, exp(inf) = inf, NaN stays; results below the normal range are right too.
template <class T>
FASTDL_INLINE Vec<T> exp_of(Vec<T> x) {
  const Vec<T> top = broadcast(Constants<T>::kExpMax);
  return exp_of_negative<T>(top < x ? top : x);
}
FASTDL_INLINE Vec<float> exp(Vec<float> x) { return exp_of<float>(x); }
FASTDL_INLINE Vec<double> exp(Vec<double> x) { return exp_of<double>(x); }

/// ln x = e ln 2 + ln(1 + f) where x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt 2, and with
/// s = f / (2 + f):  ln(1 + f) = 2 atanh(s) = f - (f^2 / 2 - s (f^2 / 2 + s^2 q(s^2))).
template <class T>
FASTDL_INLINE Vec<T> log_of_normal(Vec<T> x, Vec<T> e0) {
  using K = Constants<T>;
  typedef Bits<T> V __attribute__((vector_size(kVectorBytes)));
  constexpr T kTwo = T(Bits<T>{1} << K::kMantissa);
  const V bits = (V)x;
  const V biased = bits - Bits<T>(K::kSqrtHalf) + (Bits<T>{K::kBias} << K::kMantissa);
  const V exponent = biased >> K::kMantissa;
  const Vec<T> e = (Vec<T>)(exponent | (V)broadcast(kTwo)) - broadcast(kTwo + K::kBias) + e0;
  const V mantissa = bits - (exponent << K::kMantissa) + (Bits<T>{K::kBias} << K::kMantissa);
  const Vec<T> f = (Vec<T>)mantissa - broadcast(T(1));
  const Vec<T> half = f * f * broadcast(T(0.5)), s = f / (f + broadcast(T(2))), z = s * s;
  const Vec<T> tail = s * fma(z, polynomial(z, K::kLog), half);
  const Vec<T> low = half - fma(e, broadcast(K::kLn2Lo), tail);
  return fma(e, broadcast(K::kLn2Hi), f - low);
}

/// ln x.  log(0) = -inf, log(inf) = inf, NaN for x < 0 and NaN; denormals are right too.
template <class T>
FASTDL_INLINE Vec<T> log_of(Vec<T> x) {
  using K = Constants<T>;
  constexpr T kUp = T(Bits<T>{1} << K::kMantissa);
  constexpr T kMinNormal = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  const auto tiny = x < broadcast(kMinNormal);
  const Vec<T> e0 = select<T>(tiny, broadcast(T(-K::kMantissa)), Vec<T>{});
  const Vec<T> y = log_of_normal<T>(select<T>(tiny, x * broadcast(kUp), x), e0);
  const Vec<T> inf = broadcast(T(__builtin_inf())), nan = broadcast(T(__builtin_nan("")));
  const Vec<T> other = select<T>(x == Vec<T>{}, -inf, select<T>(x == inf, inf, nan));
  return select<T>((x > Vec<T>{}) & (x < inf), y, other);
}
FASTDL_INLINE Vec<float> log(Vec<float> x) { return log_of<float>(x); }
FASTDL_INLINE Vec<double> log(Vec<double> x) { return log_of<double>(x); }

/// tanh x, on |x| = a with the sign put back: a + a^3 t(a^2) below kTanhSmall, 1 - 2 / (e^2a + 1) from
/// there on, where the result is above 1/2 and the errors of the quotient count half or less.
template <class T>
FASTDL_INLINE Vec<T> tanh_of(Vec<T> x) {
  using K = Constants<T>;
  typedef Bits<T> V __attribute__((vector_size(kVectorBytes)));
  constexpr Bits<T> kSign = Bits<T>{1} << (sizeof(T) * 8 - 1);
  const Vec<T> one = broadcast(T(1)), top = broadcast(K::kTanhMax);
  const V sign = (V)x & kSign;
  const Vec<T> a = (Vec<T>)((V)x & ~kSign), z = a * a;
  const Vec<T> lower = fma(a * z, polynomial(z, K::kTanh), a);
  const Vec<T> bounded = top < a ? top : a;  // keeps NaN
  const Vec<T> e = exp_of_negative<T>(bounded + bounded);
  const Vec<T> upper = one - broadcast(T(2)) / (e + one);
  return (Vec<T>)((V)select<T>(a < broadcast(K::kTanhSmall), lower, upper) | sign);
}
FASTDL_INLINE Vec<float> tanh(Vec<float> x) { return tanh_of<float>(x); }
FASTDL_INLINE Vec<double> tanh(Vec<double> x) { return tanh_of<double>(x); }

}  // namespace
}  // namespace fastdl::FASTDL_ISA
