#pragma once
// How a matrix product is cut up.  Depends on shapes alone, so that kernels, scratch sizes and the
// order of accumulation cannot depend on threads.
#include "core/op.h"

namespace fastdl {

/// Length of a k-block.  Part of the numerical contract: within a block an element is one fma chain
/// over k ascending, and the block sums are added in order.
constexpr int64_t kKC = 512;

struct GemmPlan {
  int64_t mc, nc;  // a chunk computes an mc x nc piece of C
  int64_t row_chunks, col_chunks;

  FASTDL_INLINE int64_t chunks() const { return row_chunks * col_chunks; }
};

constexpr int64_t kPanelMax = 64;  // the widest packed panel of B, in columns

FASTDL_INLINE constexpr int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Rows per chunk: 168 = 12 x 14 = 28 x 6 rows keep a block of A (168 x kKC) in L2.  A chunk packs
/// its own panels of B, which costs about 3 / rows of the arithmetic.
FASTDL_INLINE constexpr GemmPlan gemm_plan(int64_t M, int64_t N) {
  const int64_t mc = M < 168 ? (M > 0 ? M : 1) : 168;
  const int64_t nc = N <= 2 * kPanelMax ? kPanelMax : N <= 1024 ? 2 * kPanelMax : 4 * kPanelMax;
  return {mc, nc, div_up(M, mc), div_up(N, nc)};
}

/// Per-thread memory of a product: one packed panel of B.
FASTDL_INLINE constexpr int64_t gemm_thread_bytes(int64_t K, DType t) {
  return (K < kKC ? K : kKC) * kPanelMax * size_of(t) + 64;
}

}  // namespace fastdl
