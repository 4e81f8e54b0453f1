#pragma once
// Philox4x32-10 for a vector of counters at once: the bits of core/philox.h.
//
// The state of a block lies in 64-bit lanes, because the generator is made of 32 x 32 -> 64
// products: each of c0..c3 is the low half of a lane.  What the high halves hold does not matter,
// since a product reads only the low ones, so a round is 2 products, 2 shifts and 4 xors.
// With lane l holding block (l mod 2) L/2 + l/2, the final interleaving stays within 128 bits.
#include <utility>

#include "core/philox.h"
#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
typedef uint64_t Blocks __attribute__((vector_size(kVectorBytes)));
constexpr int kBlocks = kVectorBytes / 8;
/// Random words from one call of philox_words: two vectors of them.
constexpr int kPhiloxWords = 4 * kBlocks;

/// Products of the low halves.
FASTDL_INLINE Blocks multiply_low(Blocks a, uint32_t b) {
  const Blocks factor = Blocks{} + uint64_t{b};
#if defined(__AVX512F__)
  return (Blocks)_mm512_maskz_mul_epu32(-1, (__m512i)a, (__m512i)factor);
#elif defined(__AVX2__)
  return (Blocks)_mm256_mul_epu32((__m256i)a, (__m256i)factor);
#elif defined(__x86_64__)
  return (Blocks)_mm_mul_epu32((__m128i)a, (__m128i)factor);
#elif defined(__aarch64__)
  return (Blocks)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)factor));
#else
  return (a & 0xffffffffu) * factor;
#endif
}

/// Number i is (i mod 2) kBlocks / 2 + i / 2.
template <int... I>
FASTDL_INLINE Blocks block_of_lane(std::integer_sequence<int, I...>) {
  return Blocks{(I % 2 * (kBlocks / 2) + I / 2)...};
}
/// Lanes Odd, Odd + 2, ... of a and b in turns.
template <int Odd, int... I>
FASTDL_INLINE Blocks interleave(Blocks a, Blocks b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 * 2 + Odd + I % 2 * kBlocks)...);
}

/// The generator's words 4 block, 4 block + 1, ... under `key`, with `stream` as the upper half of
/// the counter.
FASTDL_INLINE void philox_words(uint64_t key, uint64_t stream, uint64_t block, Words (&out)[2]) {
  const auto lanes = std::make_integer_sequence<int, kBlocks>();
  const Blocks number = block_of_lane(lanes) + block;
  Blocks c0 = number, c1 = number >> 32;
  Blocks c2 = Blocks{} + uint64_t{uint32_t(stream)}, c3 = Blocks{} + (stream >> 32);
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  unroll<kPhiloxRounds>([&](auto) FASTDL_UNROLLED {
    const Blocks p0 = multiply_low(c0, kPhiloxMul0), p1 = multiply_low(c2, kPhiloxMul1);
    c0 = (p1 >> 32) ^ c1 ^ uint64_t{k0};
    c2 = (p0 >> 32) ^ c3 ^ uint64_t{k1};
    c1 = p1, c3 = p0;
    k0 += kPhiloxKey0, k1 += kPhiloxKey1;
  });
  const Blocks w01 = (c0 & 0xffffffffu) | (c1 << 32), w23 = (c2 & 0xffffffffu) | (c3 << 32);
  out[0] = (Words)interleave<0>(w01, w23, lanes);
  out[1] = (Words)interleave<1>(w01, w23, lanes);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
