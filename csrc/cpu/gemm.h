#pragma once
// C = epilogue(A B), any strides of A and B, C row-major.
//
// A chunk is an mc x nc piece of C (see core/gemm_plan.h).  For each k-block and each panel of NR
// columns, B is packed into NR-wide rows (skipped when a panel is used for few rows and is
// contiguous already), then the register kernel walks down the rows, MR at a time, with MR x NR
// accumulators.
//
// Tile sizes: the kernel needs MR * NV >= latency x ports (4 x 2) independent chains, and loads
// NV + MR vectors per MR * NV fmas, so both ports stay busy when MR * NV > NV + MR.  With 32
// registers 14 x 2 (28 accumulators + 2 of B + 1 broadcast); with 16, 6 x 2.
#include "core/gemm_plan.h"
#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Element (i, j) is data[i * row + j * col].
template <class T>
struct Matrix {
  const T* data;
  int64_t row, col;
};

/// What happens to a finished element: C = act(sum + bias), or C += sum.
template <class T>
struct Epilogue {
  const T* bias = nullptr;  // by column
  bool relu = false;
  bool accumulate = false;
};

constexpr int kNV = 2;
constexpr int kMR = kRegisters >= 32 ? 14 : 6;
template <class T>
constexpr int kNR = kNV * kLanes<T>;

/// MR x NR of C += A (MR x kc) B (kc x NR).  `first`: C is written, not added to.
template <class T, int MR>
void tile(int64_t kc, Matrix<T> A, const T* b, int64_t ldb, T* c, int64_t ldc, int64_t cols,
          bool first, const T* bias, bool relu_on) {
  Vec<T> acc[MR][kNV];
  unroll<MR>([&](auto i) { unroll<kNV>([&](auto j) { acc[i][j] = Vec<T>{}; }); });
  const T* a = A.data;
  const bool whole = cols == kNR<T>;
  for (int64_t k = 0; k < kc; ++k, a += A.col, b += ldb) {
    Vec<T> bv[kNV];
    if (whole)
      unroll<kNV>([&](auto j) { bv[j] = load(b + j * kLanes<T>); });
    else
      unroll<kNV>([&](auto j) {
        bv[j] = load(b + j * kLanes<T>, max_of(0, min_of(kLanes<T>, cols - j * kLanes<T>)));
      });
    unroll<MR>([&](auto i) {
      const Vec<T> x = broadcast(a[i * A.row]);
      unroll<kNV>([&](auto j) { acc[i][j] = fma(x, bv[j], acc[i][j]); });
    });
  }
  unroll<kNV>([&](auto j) {
    const int64_t n = max_of(0, min_of(kLanes<T>, cols - j * kLanes<T>));
    const Vec<T> add = bias ? load(bias + j * kLanes<T>, n) : Vec<T>{};
    unroll<MR>([&](auto i) {
      T* p = c + i * ldc + j * kLanes<T>;
      Vec<T> v = acc[i][j];
      if (!first) v = load(p, n) + v;
      if (bias) v = v + add;
      if (relu_on) v = relu(v);
      store(p, v, n);
    });
  });
}

template <class T>
using Tile = void (*)(int64_t, Matrix<T>, const T*, int64_t, T*, int64_t, int64_t, bool, const T*,
                      bool);

/// The register kernel for `rows` <= kMR rows.
template <class T, int MR = kMR>
FASTDL_INLINE Tile<T> tile_for(int64_t rows) {
  if constexpr (MR > 1) {
    if (rows < MR) return tile_for<T, MR - 1>(rows);
  }
  return &tile<T, MR>;
}

/// Copies B (kc x cols) into rows of NR, zero-filled to the right.
template <class T>
void pack_panel(Matrix<T> B, int64_t kc, int64_t cols, T* to) {
  if (B.col == 1) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t j = 0; j < kNR<T>; j += kLanes<T>)
        store(to + k * kNR<T> + j,
              load(B.data + k * B.row + j, max_of(0, min_of(kLanes<T>, cols - j))));
    return;
  }
  for (int64_t j = 0; j < kNR<T>; ++j)
    for (int64_t k = 0; k < kc; ++k)
      to[k * kNR<T> + j] = j < cols ? B.data[k * B.row + j * B.col] : T{0};
}

/// One chunk of C: rows [i0, i1), columns [j0, j1).
template <class T>
void gemm_chunk(int64_t i0, int64_t i1, int64_t j0, int64_t j1, int64_t K, Matrix<T> A, Matrix<T> B,
                T* C, int64_t ldc, const Epilogue<T>& e, T* panel) {
  int64_t k0 = 0;
  do {
    const int64_t kc = min_of(kKC, K - k0);
    const bool first = k0 == 0 && !e.accumulate, done = k0 + kc == K;
    for (int64_t j = j0; j < j1; j += kNR<T>) {
      const int64_t cols = min_of(kNR<T>, j1 - j);
      const Matrix<T> Bj{B.data + k0 * B.row + j * B.col, B.row, B.col};
      const bool direct = B.col == 1 && i1 - i0 <= kMR;
      if (!direct) pack_panel(Bj, kc, cols, panel);
      for (int64_t i = i0; i < i1; i += kMR) {
        const int64_t rows = min_of(kMR, i1 - i);
        tile_for<T>(rows)(kc, {A.data + i * A.row + k0 * A.col, A.row, A.col},
                          direct ? Bj.data : panel, direct ? B.row : kNR<T>, C + i * ldc + j, ldc,
                          cols, first, done && e.bias ? e.bias + j : nullptr, done && e.relu);
      }
    }
    k0 += kc;
  } while (k0 < K);
}

/// C (M x N) = epilogue(A (M x K) B (K x N)).  K = 0 gives the epilogue of zeros.
template <class T>
void gemm(int64_t M, int64_t N, int64_t K, Matrix<T> A, Matrix<T> B, T* C, int64_t ldc,
          const Epilogue<T>& e, const Workspace& ws) {
  if (M == 0 || N == 0) return;
  const GemmPlan plan = gemm_plan(M, N);
  parallel_for(plan.chunks(), M * N * max_of(K, 1) / 2, [&](int64_t chunk, int worker) {
    const int64_t i0 = chunk % plan.row_chunks * plan.mc, j0 = chunk / plan.row_chunks * plan.nc;
    gemm_chunk(i0, min_of(M, i0 + plan.mc), j0, min_of(N, j0 + plan.nc), K, A, B, C, ldc, e,
               reinterpret_cast<T*>(ws.of_thread(worker)));
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
