#pragma once
// What the ways to form a product share: its description, packing, and the sums of B's columns.
#include "core/gemm_plan.h"
#include "cpu/tile.h"
#include "cpu/transpose.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// What happens to a finished element: C = act(sum + bias), or C = sum act'(z) where y = act(z) is
/// given, or C += sum.
template <class T>
struct Epilogue {
  const T* bias = nullptr;  // by column
  Activation activation = Activation::none;
  const T* y = nullptr;  // M x N, in rows of ldc as C
  bool accumulate = false;
};

template <class T>
struct Product {
  int64_t M, N, K;
  Matrix<T> A, B;
  T* C;
  int64_t ldc;
  Epilogue<T> e;
  T* sums = nullptr;  // receives the sums of B's columns too, or is added to as C
};

/// A piece of C: rows [i0, i1), columns [j0, j1).
struct Piece {
  int64_t i0, i1, j0, j1;
};

/// A block of A packed tile by tile: a step of k reads its rows side by side.  The vector of padding
/// between tiles keeps their streams out of the same sets of the cache.
template <class T>
FASTDL_INLINE int64_t packed_tile_size(int64_t step, int64_t kc) {
  return step * kc + kLanes<T>;
}

/// Packs `rows` rows of A, k-block wide, in tiles of `step` rows.
template <class T>
void pack_rows(const Matrix<T>& A, int64_t rows, int64_t step, int64_t kc, T* to) {
  constexpr int L = kLanes<T>;
  const int64_t tile_size = packed_tile_size<T>(step, kc);
  if (A.row == 1) {                // down the rows of memory, for all tiles at once
    constexpr int64_t kAhead = 8;  // the rows are too short for the CPU to prefetch by itself
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t i = 0; i < rows; i += step) {
        const int64_t n = min_of(step, rows - i);
        const T* from = A.data + k * A.col + i;
        if (k + kAhead < kc) __builtin_prefetch(from + kAhead * A.col + n - 1);
        T* at = to + i / step * tile_size + k * n;
        for (int64_t r = 0; r < n; r += L) store(at + r, load(from + r, n - r), n - r);
      }
    return;
  }
  for (int64_t i = 0; i < rows; i += step, to += tile_size) {
    const int64_t n = min_of(step, rows - i);
    pack_transposed(A.data + i * A.row, A.row, n, kc, to, n);
  }
}

/// Copies a panel of B (kc x cols) into rows of NV vectors, zero-filled to the right.
template <class T, int NV>
void pack_panel(const Matrix<T>& B, int64_t kc, int64_t cols, T* to) {
  constexpr int L = kLanes<T>;
  if (B.col == 1) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t j = 0; j < NV * L; j += L)
        store(to + k * NV * L + j, load(B.data + k * B.row + j, max_of(0, min_of(L, cols - j))));
    return;
  }
  if (cols < NV * L) __builtin_memset(to, 0, kc * NV * L * sizeof(T));
  pack_transposed(B.data, B.col, cols, kc, to, NV * L);
}

/// sums_j (+)= sum_k B_kj over one k-block.  The rows of B form eight chains, k mod 8, which hides the
/// latency of an addition; the chains are joined in a fixed order.
template <class T>
__attribute__((noinline)) void sum_columns(const T* B, int64_t ldb, int64_t kc, int64_t cols,
                                           T* sums, bool add) {
  for_each_vector<T>(0, cols, [=](int64_t j, int64_t n) {
    const T* b = B + j;
    Vec<T> s[8] = {};
    int64_t k = 0;
    for (; k + 8 <= kc; k += 8, b += 8 * ldb)
      unroll<8>([&](auto i) FASTDL_UNROLLED { s[i] = s[i] + load(b + i * ldb, n); });
    for (; k < kc; ++k, b += ldb) s[0] = s[0] + load(b, n);
    unroll<4>([&](auto i) FASTDL_UNROLLED { s[i] = s[i] + s[i + 4]; });
    s[0] = (s[0] + s[2]) + (s[1] + s[3]);
    store(sums + j, add ? load(sums + j, n) + s[0] : s[0], n);
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
