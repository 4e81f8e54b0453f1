#pragma once
// exp and log of vectors, below 1 ulp, and tanh, below 2, with the same bits on every ISA that has fma.
//
// The polynomials are minimax: Remez exchange in 50-digit arithmetic on the reduced interval, with
// the weight that makes the *relative* error of the result level; then each coefficient is rounded
// to T.  The first terms are fixed to their exact values, which keeps the last fma's rounding as
// the main error.
#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
struct Constants;

template <>
struct Constants<float> {
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kLog2e = 0x1.715476p+0f;
  // ln 2 in two parts; the first has few bits, so n * kLn2Hi is exact even without fma.
  static constexpr float kLn2Hi = 0x1.62e4p-1f, kLn2Lo = 0x1.7f7d1cp-20f;
  static constexpr float kRound = 0x1.8p23f;  // x + kRound has x rounded to an integer in its bits
  static constexpr float kExpMin = -104, kExpMax = 89;  // exp is 0 below, infinite above
  // (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2; relative error of e^r 2^-28.3
  static constexpr float kExp[] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558fp-5f, 0x1.1239c6p-7f,
                                   0x1.6a248cp-10f};
  // (2 atanh(s) - 2 s) / s^3 in z = s^2 on s <= (sqrt 2 - 1) / (sqrt 2 + 1); 2^-37.6
  static constexpr float kLog[] = {0x1.555554p-1f, 0x1.999a7ap-2f, 0x1.2438fp-2f, 0x1.e2f34p-3f};
  // (tanh(x) / x - 1) / x^2 in x^2 on |x| <= kTanhSmall; relative error of tanh x 2^-29.8
  static constexpr float kTanh[] = {-0x1.55554ap-2f, 0x1.110d26p-3f, -0x1.b9287ap-5f,
                                    0x1.593d04p-6f, -0x1.9b3036p-8f};
  static constexpr float kTanhSmall = 0.55f, kTanhMax = 10;  // tanh rounds to 1 from 9.02 on
  static constexpr int32_t kSqrtHalf = 0x3f3504f3;
};

template <>
struct Constants<double> {
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2Hi = 0x1.62e42feep-1, kLn2Lo = 0x1.a39ef35793c76p-33;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kExpMin = -746, kExpMax = 710;
  // as above; 2^-57.9
  static constexpr double kExp[] = {
      0x1.0000000000009p-1,  0x1.55555555554fap-3,  0x1.55555555508d8p-5,  0x1.1111111127b57p-7,
      0x1.6c16c18418cc1p-10, 0x1.a01a012a67a64p-13, 0x1.a0199a365238dp-16, 0x1.71df2566ba753p-19,
      0x1.28ad4f36c7524p-22, 0x1.ad7f05a34f7eep-26};
  // as above; 2^-59.5
  static constexpr double kLog[] = {
      0x1.5555555555592p-1, 0x1.999999997fef9p-2, 0x1.24924941e0db7p-2, 0x1.c71c52159ebafp-3,
      0x1.74663c90349bdp-3, 0x1.39a1f35fb4263p-3, 0x1.2f034b44c8e47p-3};
  // as above; 2^-60.6
  static constexpr double kTanh[] = {
      -0x1.555555555554fp-2,  0x1.111111111079fp-3,  -0x1.ba1ba1b97d887p-5,  0x1.664f485970a0fp-6,
      -0x1.226e2f147d085p-7,  0x1.d6d29b9798d05p-9,  -0x1.7d8fd3bab4f42p-10, 0x1.3483af1d3d042p-11,
      -0x1.e96fcc9d9fdd4p-13, 0x1.5d747062c9856p-14, -0x1.471147bb3368dp-16};
  static constexpr double kTanhSmall = 0.55, kTanhMax = 20;  // from 19.07 on
  static constexpr int64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
};

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

/// e^x for x <= kExpMax (or NaN), which all x <= 0 are: x = n ln 2 + r with |r| <= ln 2 / 2, and e^x = 2^n e^r.
template <class T>
FASTDL_INLINE Vec<T> exp_of_negative(Vec<T> x) {
  using K = Constants<T>;
  const Vec<T> one = broadcast(T(1)), given = x;
#if !defined(__AVX512F__)
  x = max(broadcast(K::kExpMin), x);  // keeps the exponents in range
#endif
  const Vec<T> rounded = fma(x, broadcast(K::kLog2e), broadcast(K::kRound));
  const Vec<T> n = rounded - broadcast(K::kRound);
  const Vec<T> r = fma(n, broadcast(-K::kLn2Lo), fma(n, broadcast(-K::kLn2Hi), x));
  const Vec<T> p = fma(fma(polynomial(r, K::kExp), r, one), r, one);
  return scale_by_power_of_2<T>(p, n, rounded, given);
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
