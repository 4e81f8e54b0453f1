#pragma once
// L x L transposes in registers, for packing.
#include <utility>

#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Lane l of the pair's new first (second) row: blocks of H lanes are exchanged across the
/// diagonal.
template <int H, bool kSecond, class V, int... I>
FASTDL_INLINE V exchange(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  if constexpr (kSecond)
    return __builtin_shufflevector(a, b, ((I & H) ? L + I : I + H)...);
  else
    return __builtin_shufflevector(a, b, ((I & H) ? L + I - H : I)...);
}

/// Transposes the L x L matrix whose rows are r[0..L-1], in log2(L) rounds of L shuffles.
template <class T, int H = kLanes<T> / 2>
FASTDL_INLINE void transpose(Vec<T> (&r)[kLanes<T>]) {
  if constexpr (H > 0) {
    using Lanes = std::make_integer_sequence<int, kLanes<T>>;
    unroll<kLanes<T>>([&](auto i) FASTDL_UNROLLED {
      if constexpr ((i & H) == 0) {
        const Vec<T> a = r[i], b = r[i + H];
        r[i] = exchange<H, false>(a, b, Lanes{});
        r[i + H] = exchange<H, true>(a, b, Lanes{});
      }
    });
    transpose<T, H / 2>(r);
  }
}

/// to[k * ld + i] = from[i * row + k] for i < rows <= L, k < count; lanes i >= rows become zero.
/// Writes L elements per k, so the last row of `to` needs L elements of room.  One copy of the shuffles,
/// 2 KiB and more, serves all callers.
template <class T>
__attribute__((noinline)) void pack_transposed(const T* from, int64_t row, int64_t rows,
                                               int64_t count, T* to, int64_t ld) {
  constexpr int L = kLanes<T>;
  for (int64_t k = 0; k < count; k += L) {
    const int64_t n = count - k < L ? count - k : L;
    Vec<T> r[L];
    unroll<L>([&](auto i)
                  FASTDL_UNROLLED { r[i] = i < rows ? load(from + i * row + k, n) : Vec<T>{}; });
    transpose<T>(r);
    if (n == L)
      unroll<L>([&](auto i) FASTDL_UNROLLED { store(to + (k + i) * ld, r[i]); });
    else
      unroll<L>([&](auto i) FASTDL_UNROLLED {
        if (i < n) store(to + (k + i) * ld, r[i]);
      });
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
