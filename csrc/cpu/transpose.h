#pragma once
// Transposes in registers on the way from memory to memory, for packing and copies.
#include <utility>

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// A block is 16 bytes: shuffles within blocks are fast on every CPU, and loads of blocks do not
/// straddle lines where NumPy puts arrays.
constexpr int kBlockBytes = 16;
/// The matrices have S = 4 or 8 rows of float, half of that of double: sixteen rows whose stride is a
/// power of two would push each other out of the first-level cache.
constexpr int kSideBytes = kVectorBytes > kBlockBytes ? 2 * kBlockBytes : kBlockBytes;
template <class T>
constexpr int kBlock = kBlockBytes / int(sizeof(T));
template <class T>
constexpr int kSide = kSideBytes / int(sizeof(T));

template <class T>
struct SideOf {
  typedef T type __attribute__((vector_size(kSideBytes)));
  typedef T unaligned __attribute__((vector_size(kSideBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Side = typename SideOf<T>::type;

/// A block from each of two places; an insertion from memory is no shuffle.  Without AVX one block.
template <class T>
FASTDL_INLINE Side<T> load_blocks(const T* p, [[maybe_unused]] const T* q) {
#if defined(__AVX__)
  const auto block = [](const T* at) { return _mm_loadu_ps(reinterpret_cast<const float*>(at)); };
  return Side<T>(_mm256_insertf128_ps(_mm256_castps128_ps256(block(p)), block(q), 1));
#else
  return *reinterpret_cast<const typename SideOf<T>::unaligned*>(p);
#endif
}

/// Groups of G elements in turn from the lower (upper) halves of the blocks of a and b.
template <class T, int G, bool kUpper, int... I>
FASTDL_INLINE Side<T> interleave(Side<T> a, Side<T> b, std::integer_sequence<int, I...>) {
  constexpr int E = kBlock<T>, kFrom = kUpper ? E / 2 : 0;
  return __builtin_shufflevector(
      a, b, (I / E * E + kFrom + I % E / G / 2 * G + I % G + (I % E / G % 2 ? kSide<T> : 0))...);
}

/// Transposes the E x E matrices that r[0..E-1] hold side by side, one in each block.
template <class T>
FASTDL_INLINE void transpose_blocks(Side<T> (&r)[kBlock<T>]) {
  using Lanes = std::make_integer_sequence<int, kSide<T>>;
  if constexpr (kBlock<T> == 4) {
    const Side<T> a = interleave<T, 1, false>(r[0], r[1], Lanes{});
    const Side<T> b = interleave<T, 1, true>(r[0], r[1], Lanes{});
    const Side<T> c = interleave<T, 1, false>(r[2], r[3], Lanes{});
    const Side<T> d = interleave<T, 1, true>(r[2], r[3], Lanes{});
    r[0] = interleave<T, 2, false>(a, c, Lanes{});
    r[1] = interleave<T, 2, true>(a, c, Lanes{});
    r[2] = interleave<T, 2, false>(b, d, Lanes{});
    r[3] = interleave<T, 2, true>(b, d, Lanes{});
  } else {
    const Side<T> a = r[0];
    r[0] = interleave<T, 1, false>(a, r[1], Lanes{});
    r[1] = interleave<T, 1, true>(a, r[1], Lanes{});
  }
}

/// to[k * ld + i] = row(i)[k] for i, k < S.
template <class T, class Row>
FASTDL_INLINE void transpose(Row row, T* to, int64_t ld) {
  constexpr int E = kBlock<T>, S = kSide<T>;
  unroll<S / E>([&](auto block) FASTDL_UNROLLED {
    Side<T> r[E];
    unroll<E>([&](auto i) FASTDL_UNROLLED {
      constexpr std::integral_constant<int, i + S - E> lower;
      r[i] = load_blocks(row(i) + block * E, row(lower) + block * E);
    });
    transpose_blocks<T>(r);
    unroll<E>([&](auto k) FASTDL_UNROLLED {
      *reinterpret_cast<typename SideOf<T>::unaligned*>(to + (block * E + k) * ld) = r[k];
    });
  });
}

/// to[k * ld + i] = from[i * row + k] for i < rows, k < count.  With fewer than S rows, S are written
/// for each k: what that spoils lies in the next k, which is written later, and the last row of `to`
/// needs room for S.
template <class T>
__attribute__((noinline)) void pack_transposed(const T* from, int64_t row, int64_t rows,
                                               int64_t count, T* to, int64_t ld) {
  constexpr int S = kSide<T>;
  constexpr int64_t kStretch = 64;  // of k: what its rows of `to` get, S by S, meets in L1
  for (int64_t k0 = 0; k0 < count; k0 += kStretch) {
    const int64_t k1 = min_of(k0 + kStretch, count);
    for (int64_t i = 0; i < rows; i += S) {
      if (i + S > rows) i = max_of(0, rows - S);  // some rows again
      int64_t k = k0;
      for (; rows >= S && k + S <= k1; k += S)
        transpose([x = from + i * row + k, row](auto r) FASTDL_UNROLLED { return x + r * row; },
                  to + k * ld + i, ld);
      for (; k + S <= k1; k += S)
        transpose([x = from + k, row, rows](auto r)
                      FASTDL_UNROLLED { return x + min_of(r, rows - 1) * row; },
                  to + k * ld, ld);
      for (; k < k1; ++k)
        for (int64_t r = i; r < min_of(i + S, rows); ++r) to[k * ld + r] = from[r * row + k];
    }
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
