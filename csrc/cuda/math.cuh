#pragma once
// exp, log and tanh: the formulas of cpu/math.h for one number, with the same bits.
#include "core/math_constants.h"
#include "cuda/port.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
FASTDL_DEVICE constexpr T infinity() {
  return T(__builtin_huge_val());
}

/// The finite number below all others.
template <class T>
FASTDL_DEVICE constexpr T lowest() {
  return sizeof(T) == 4 ? T(-0x1.fffffep127) : T(-0x1.fffffffffffffp1023);
}

enum class Series { exp, log, tanh };

/// Coefficient I.  Device code may use the value of a constant but not the address of an array.
template <Series S, int I, class T>
FASTDL_DEVICE constexpr T coefficient() {
  constexpr T value = S == Series::exp   ? Constants<T>::kExp[I]
                      : S == Series::log ? Constants<T>::kLog[I]
                                         : Constants<T>::kTanh[I];
  return value;
}
template <Series S, class T>
constexpr int kTerms = int((S == Series::exp   ? sizeof(Constants<T>::kExp)
                            : S == Series::log ? sizeof(Constants<T>::kLog)
                                               : sizeof(Constants<T>::kTanh)) /
                           sizeof(T));

/// c[I] + c[I + 1] x + c[I + 2] x^2 + ... by Horner's rule.
template <Series S, int I = 0, class T>
FASTDL_DEVICE T polynomial(T x) {
  if constexpr (I + 1 == kTerms<S, T>)
    return coefficient<S, I, T>();
  else
    return fma(polynomial<S, I + 1>(x), x, coefficient<S, I, T>());
}

/// e^x for x <= kExpMax or NaN: see cpu/math.h.
template <class T>
FASTDL_DEVICE T exp_of_negative(T given) {
  using K = Constants<T>;
  const T x = K::kExpMin > given ? K::kExpMin : given;  // keeps NaN
  const T rounded = fma(x, K::kLog2e, K::kRound), n = rounded - K::kRound;
  const T r = fma(n, -K::kLn2Lo, fma(n, -K::kLn2Hi, x));
  const T p = fma(fma(polynomial<Series::exp>(r), r, T(1)), r, T(1));
  // 2^n in two factors, both normal or 0: the first product is exact.
  const BitsOf<T> zero = bits_of(K::kRound) - BitsOf<T>(2 * K::kBias);
  const BitsOf<T> sum = bits_of(rounded) - zero, half = sum >> 1;
  const BitsOf<T> rest = given < K::kExpMin ? 0 : (sum - half) << K::kMantissa;
  return p * from_bits<T>(half << K::kMantissa) * from_bits<T>(rest);
}

/// e^x: see cpu/math.h.
template <class T>
FASTDL_DEVICE T exp_of(T x) {
  return exp_of_negative(Constants<T>::kExpMax < x ? Constants<T>::kExpMax : x);  // keeps NaN
}

/// ln x for normal x > 0, plus e0 ln 2.
template <class T>
FASTDL_DEVICE T log_of_normal(T x, T e0) {
  using K = Constants<T>;
  using B = BitsOf<T>;
  constexpr T kTwo = T(B{1} << K::kMantissa);
  const B bits = bits_of(x);
  const B biased = bits - B(K::kSqrtHalf) + (B{K::kBias} << K::kMantissa);
  const B exponent = biased >> K::kMantissa;
  const T e = from_bits<T>(exponent | bits_of(kTwo)) - (kTwo + K::kBias) + e0;
  const T f =
      from_bits<T>(bits - (exponent << K::kMantissa) + (B{K::kBias} << K::kMantissa)) - T(1);
  const T half = f * f * T(0.5), s = f / (f + T(2)), z = s * s;
  const T tail = s * fma(z, polynomial<Series::log>(z), half);
  const T low = half - fma(e, K::kLn2Lo, tail);
  return fma(e, K::kLn2Hi, f - low);
}

/// ln x.  log(0) = -inf, log(inf) = inf, NaN for x < 0 and NaN; subnormal numbers are right too.
template <class T>
FASTDL_DEVICE T log_of(T x) {
  using K = Constants<T>;
  constexpr T kUp = T(BitsOf<T>{1} << K::kMantissa);
  constexpr T kMinNormal = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  if (!(x > T(0) && x < infinity<T>()))
    return x == T(0) ? -infinity<T>() : x == infinity<T>() ? x : T(__builtin_nan(""));
  const bool tiny = x < kMinNormal;
  return log_of_normal(tiny ? x * kUp : x, tiny ? T(-K::kMantissa) : T(0));
}

template <class T>
FASTDL_DEVICE T tanh_of(T x) {
  using K = Constants<T>;
  constexpr BitsOf<T> kSign = BitsOf<T>{1} << (sizeof(T) * 8 - 1);
  const BitsOf<T> sign = bits_of(x) & kSign;
  const T a = from_bits<T>(bits_of(x) & ~kSign), z = a * a;
  const T lower = fma(a * z, polynomial<Series::tanh>(z), a);
  const T bounded = K::kTanhMax < a ? K::kTanhMax : a;  // keeps NaN
  const T upper = T(1) - T(2) / (exp_of_negative(bounded + bounded) + T(1));
  return from_bits<T>(bits_of(a < K::kTanhSmall ? lower : upper) | sign);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
