#pragma once
// bf16 numbers in memory: the upper half of a float.  Nothing computes in them.
#include "core/view.h"

namespace fastdl {

struct Bf16 {
  uint16_t bits;
};

FASTDL_INLINE constexpr float widened(Bf16 x) {
  return __builtin_bit_cast(float, uint32_t(x.bits) << 16);
}
/// To nearest even; NaN stays.
FASTDL_INLINE constexpr Bf16 to_bf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {uint16_t(bits >> 16 | 0x40)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace fastdl
