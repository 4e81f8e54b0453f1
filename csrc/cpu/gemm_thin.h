#pragma once
// Products with few columns, and those of one row.
//
// Few columns: a tile would use N lanes of its vectors, so C^T = B^T A^T is formed instead.  Vectors
// run down the rows of C, four of them by at most kWideTileRows columns.  The rows of A^T lie in
// memory if A is a transposed matrix (dW = X^T dZ); else A is turned on the way (cpu/transpose.h), a
// quarter of a shuffle for each element, where a tile needs a broadcast and a multiply-add for each.
//
// One row: the rows of B stream by, eight at a time, while the sums stay in L1.  Panels of B would
// touch a new page for every row of a wide matrix.
//
// Every element has the order of the contract (core/gemm_plan.h), so the choice cannot be seen.
#include "cpu/gemm_pack.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// The most columns that are few: where the other way was found to be faster from.
template <class T>
constexpr int kThinColumns = kLanes<T> * 3 / 2;
template <class T>
constexpr int kThinColumnsTransposed = kLanes<T> * 3 / 2;

template <class T>
FASTDL_INLINE bool is_thin(const Product<T>& p) {
  const int64_t most = p.A.row == 1 ? kThinColumns<T> : kThinColumnsTransposed<T>;
  return p.N <= most && p.ldc == p.N && p.M >= kLanes<T>;
}

/// C^T of up to 4 vectors of rows of C, after its epilogue, back into C.
template <class T>
void turn_back(const Product<T>& p, int64_t i, int64_t rows, T* turned) {
  constexpr int L = kLanes<T>, NR = 4 * L;
  const int64_t N = p.N;
  if (p.e.bias)
    for (int64_t j = 0; j < N * NR; j += L)
      store(turned + j, load(turned + j) + broadcast(p.e.bias[j / NR]));
  if (!p.e.y)
    with_activation(p.e.activation, [&](auto act) {
      using Act = decltype(act);
      for (int64_t j = 0; j < N * NR; j += L)
        store(turned + j, Act::template forward<T>(load(turned + j)));
    });
  alignas(64) T out[kThinColumns<T> * NR + kSide<T>];
  pack_transposed(turned, NR, N, rows, out, N);
  T* const C = p.C + i * N;
  if (p.e.y)
    with_activation(p.e.activation, [&](auto act) {
      using Act = decltype(act);
      for_each_vector<T>(0, rows * N, [&](int64_t j, int64_t n) {
        store(out + j, Act::template backward<T>(load(out + j), load(p.e.y + i * N + j, n)));
      });
    });
  for_each_vector<T>(0, rows * N, [&](int64_t j, int64_t n) { store(C + j, load(out + j), n); });
}

/// Part of a k-block of C^T = B^T A^T, from step k on.
template <class T, bool kUnitRows>
FASTDL_INLINE void thin_tiles(const Product<T>& p, int64_t k, TileCall<T> c) {
  const int64_t step = ceil_div(p.N, ceil_div(p.N, kWideTileRows));
  T* const to = c.C;
  const T* const chains = c.chains;
  for (int64_t j = 0; j < p.N; j += step) {
    const Matrix<T> B = p.B.at(k, j);
    c.A = {B.data, B.col, B.row};
    c.C = to + j * c.ldc;
    c.chains = chains ? chains + j * c.ldc : nullptr;
    Tiles<T, kWideTileRows, 4, kUnitRows, ReadB::whole>::of(min_of(step, p.N - j))(c);
  }
}

/// One k-block of C^T, for the rows of C that start at row i.  A that has to be turned is so in stretches
/// of k that fit the first-level cache; the chains of multiply-adds wait in `chains` meanwhile.
template <class T>
void thin_block(const Product<T>& p, const Piece& rows, int64_t k0, T* panel, T* chains,
                T* turned) {
  constexpr int NR = 4 * kLanes<T>;
  constexpr int64_t kStretch = 64;
  const int64_t n = rows.i1 - rows.i0, last = min_of(p.K, k0 + kKC);
  const bool turn = p.A.row != 1 || n < NR;
  TileCall<T> c{};
  c.ldc = c.cols = NR;
  int64_t k = k0;
  do {
    const Matrix<T> A = p.A.at(rows.i0, k);
    c.kc = turn ? min_of(kStretch, last - k) : last - k;
    c.B = A.data, c.ldb = A.col;
    if (turn) {
      pack_panel<T, 4>({A.data, A.col, A.row}, c.kc, n, panel);
      c.B = panel, c.ldb = NR;
    }
    const bool done = k + c.kc == last;
    c.chains = k > k0 ? chains : nullptr;
    c.C = done ? turned : chains;
    c.add = done && (k0 > 0 || p.e.accumulate);
    if (p.B.col == 1)
      thin_tiles<T, true>(p, k, c);
    else
      thin_tiles<T, false>(p, k, c);
    k += c.kc;
  } while (k < last);
}

/// Rows of C, at most 4 vectors of them.
template <class T>
void thin_panel(const Product<T>& p, const Piece& rows, T* panel) {
  constexpr int NR = 4 * kLanes<T>;
  alignas(64) T turned[kThinColumns<T> * NR], chains[kThinColumns<T> * NR];
  const int64_t n = rows.i1 - rows.i0;
  if (p.e.accumulate) pack_panel<T, 4>({p.C + rows.i0 * p.N, 1, p.N}, p.N, n, turned);
  int64_t k0 = 0;
  do {
    thin_block(p, rows, k0, panel, chains, turned);
    if (p.sums && rows.i0 == 0) {
      const Matrix<T> B = p.B.at(k0, 0);
      sum_columns(B.data, B.row, min_of(kKC, p.K - k0), p.N, p.sums, k0 > 0 || p.e.accumulate);
    }
    k0 += kKC;
  } while (k0 < p.K);
  turn_back(p, rows.i0, n, turned);
}

template <class T>
void gemm_thin(const Product<T>& p, const Workspace& ws) {
  constexpr int NR = 4 * kLanes<T>;
  parallel_for(ceil_div(p.M, NR), p.M * p.N * p.K / 2, [&](int64_t chunk, int worker) {
    T* const panel = reinterpret_cast<T*>(ws.of_thread(worker));
    thin_panel(p, {chunk * NR, min_of((chunk + 1) * NR, p.M), 0, p.N}, panel);
  });
}

/// Whether the one row of A streams over the rows of B; below 64 KiB the sums of a tile, which stay
/// in registers, are faster.
template <class T>
FASTDL_INLINE bool streams_rows(const Product<T>& p) {
  return p.M == 1 && p.B.col == 1 && p.K * p.N * int64_t{sizeof(T)} >= 64 * 1024;
}

/// sums_j = fma chain over K rows of B, from `start` on or from 0.
template <int K, class T>
FASTDL_INLINE void add_rows(const Matrix<T>& x, const Matrix<T>& B, int64_t cols, bool first,
                            T* sums) {
  Vec<T> xs[K];
  unroll<K>([&](auto k) FASTDL_UNROLLED { xs[k] = broadcast(x.data[k * x.col]); });
  for_each_vector<T>(0, cols, [&](int64_t j, int64_t n) {
    Vec<T> s = first ? Vec<T>{} : load(sums + j);
    unroll<K>([&](auto k) FASTDL_UNROLLED { s = fma(xs[k], load(B.data + k * B.row + j, n), s); });
    store(sums + j, s);
  });
}

/// Columns [j0, j1) of a C of one row.
template <class T>
void one_row(const Product<T>& p, const Piece& piece, char* scratch) {
  constexpr int64_t kWidth = kPanelBytesB / sizeof(T);
  T* const sums = reinterpret_cast<T*>(scratch);
  for (int64_t j = piece.j0; j < piece.j1; j += kWidth) {
    TileCall<T> c{};
    c.C = p.C + j, c.cols = min_of(kWidth, piece.j1 - j);
    for (int64_t k0 = 0; k0 < p.K; k0 += kKC) {
      const int64_t last = min_of(p.K, k0 + kKC);
      int64_t k = k0;
      for (; k + 8 <= last; k += 8) add_rows<8>(p.A.at(0, k), p.B.at(k, j), c.cols, k == k0, sums);
      for (; k < last; ++k) add_rows<1>(p.A.at(0, k), p.B.at(k, j), c.cols, k == k0, sums);
      const bool done = last == p.K;
      c.add = k0 > 0 || p.e.accumulate;
      c.bias = done && p.e.bias ? p.e.bias + j : nullptr;
      c.activation = done ? p.e.activation : Activation::none;
      c.y = p.e.y ? p.e.y + j : nullptr;
      finish_partial_tile(c, sums, 1, 0);
      if (p.sums) sum_columns(p.B.at(k0, j).data, p.B.row, last - k0, c.cols, p.sums + j, c.add);
    }
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
