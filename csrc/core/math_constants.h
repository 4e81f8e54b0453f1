#pragma once
// The constants of exp, log and tanh (cpu/math.h, cuda/math.cuh).
//
// The polynomials are minimax: Remez exchange in 50-digit arithmetic on the reduced interval, with
// the weight that makes the *relative* error of the result level; then each coefficient is rounded
// to T.  The first terms are fixed to their exact values, which keeps the last fma's rounding as
// the main error.
#include <cstdint>

namespace fastdl {
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

}  // namespace
}  // namespace fastdl
