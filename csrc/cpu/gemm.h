#pragma once
// C = epilogue(A B), any strides of A and B, C row-major: the five loops of Goto around cpu/tile.h
// (Van Zee & van de Geijn, "BLIS: a framework for rapidly instantiating BLAS functionality", 2015).
//
//   pieces of C        one per chunk of parallel_for
//   k-blocks (kKC)     the block sums are added to C in order: see core/gemm_plan.h
//   panels of B        packed, 32 KiB, stays in L1; packed while the first tile reads it
//   tiles of A         MR rows, packed to unit stride when several panels will read them
//
// Few columns and single rows have ways of their own: cpu/gemm_thin.h.
// How C is cut into pieces cannot change a bit of it, so it follows the number of threads.
#include "cpu/gemm_pack.h"
#include "cpu/gemm_thin.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Rows of a tile that is NV vectors wide.
template <int NV>
constexpr int kRowsOf = NV == 4 ? kWideTileRows : kTileRows;

/// While the tiles of one panel run, the next panel comes into L2, a share with each tile: some steps
/// of k of all its columns or, where B is transposed, all steps of NV columns.
template <class T, int NV>
FASTDL_INLINE void fetch_share(TileCall<T>& c, const Matrix<T>& B, int64_t tile, int64_t tiles) {
  constexpr int64_t NR = NV * kLanes<T>;
  if (B.col == 1) {
    const int64_t share = ceil_div(c.kc, tiles);
    c.next = B.at(min_of(c.kc, tile * share), NR).data;
    c.next_end = B.at(min_of(c.kc, (tile + 1) * share), NR).data;
    c.next_step = B.row, c.next_col = kLanes<T>;
  } else {
    c.next = B.at(0, NR + tile * NV).data;
    c.next_end = c.next + (tile * NV < NR ? c.kc / kLanes<T> * kLanes<T> : 0);
    c.next_step = kLanes<T>, c.next_col = B.col;
  }
}

/// The k-block of one panel against all rows of the piece.
template <class T, int NV, bool kUnitRows>
void panel_times_rows(TileCall<T> c, const Matrix<T>& A, bool packed_a, int64_t rows,
                      int64_t row_step, const Matrix<T>& B, T* panel, T* sums) {
  constexpr int MR = kRowsOf<NV>;
  constexpr int NR = NV * kLanes<T>;
  T* const C = c.C;
  const T* const y = c.y;
  c.B = B.data, c.ldb = B.row;
  const bool one_tile = rows <= row_step;
  // Only panels of the common width are packed by their first tile: one vector is copied quickly, and
  // every kind of tile is compiled for every number of rows.
  bool in_panel = B.col != 1 || (one_tile ? c.cols < NR : NV == 1);
  if (in_panel) pack_panel<T, NV>(B, c.kc, c.cols, panel);
  for (int64_t i = 0; i < rows; i += row_step) {
    const int64_t n = min_of(row_step, rows - i);
    c.C = C + i * c.ldc;
    c.y = y ? y + i * c.ldc : nullptr;
    c.A = packed_a ? Matrix<T>{A.data + i / row_step * packed_tile_size<T>(row_step, c.kc), 1, n}
                   : A.at(i, 0);
    if (!one_tile) fetch_share<T, NV>(c, B, i / row_step, ceil_div(rows, row_step));
    if (in_panel) c.B = panel, c.ldb = NR;
    if (in_panel || one_tile) {
      Tiles<T, MR, NV, kUnitRows, ReadB::whole>::of(n)(c);
    } else if constexpr (NV == 2) {
      c.pack = panel;
      Tiles<T, MR, NV, kUnitRows, ReadB::pack>::of(n)(c);
      in_panel = true;
    }
  }
  if (sums) sum_columns(c.B, c.ldb, c.kc, c.cols, sums, c.add);
}

/// Packed rows pay when many panels read them, or when their stride maps them to the same few sets of
/// the cache: with 8 to 24 panels they cost more than they save.
template <class T>
FASTDL_INLINE bool should_pack_a(const Product<T>& p, const Piece& piece) {
  const int64_t stride = p.A.row == 1 ? p.A.col : p.A.row;
  const bool aliased = stride * int64_t{sizeof(T)} % 1024 == 0 && stride * sizeof(T) >= 2048;
  const int64_t panels = ceil_div(piece.j1 - piece.j0, 2 * kLanes<T>);
  return piece.i1 - piece.i0 > 1 && (panels > 24 || (aliased && panels > 1));
}

template <class T, int NV>
FASTDL_INLINE void one_panel(const TileCall<T>& c, const Matrix<T>& A, bool packed, int64_t rows,
                             int64_t row_step, const Matrix<T>& B, T* panel, T* sums) {
  if (packed || A.row == 1)
    panel_times_rows<T, NV, true>(c, A, packed, rows, row_step, B, panel, sums);
  else
    panel_times_rows<T, NV, false>(c, A, packed, rows, row_step, B, panel, sums);
}

/// All panels of a piece for one k-block.  NV vectors wide while they last, then narrower.
template <class T, int NV>
void block_of_piece(const Product<T>& p, const Piece& piece, int64_t k0, int64_t kc,
                    char* scratch) {
  constexpr int L = kLanes<T>;
  T* const panel = reinterpret_cast<T*>(scratch);
  T* const packed = reinterpret_cast<T*>(scratch + kPanelBytesB);
  const int64_t rows = piece.i1 - piece.i0;
  // Equal tiles: 16 rows are 8 + 8, not 14 + 2.
  const int64_t step = ceil_div(rows, ceil_div(rows, kRowsOf<NV>));
  const bool pack = should_pack_a(p, piece);
  Matrix<T> A = p.A.at(piece.i0, k0);
  if (pack) {
    pack_rows(A, rows, step, kc, packed);
    A = {packed, 1, 0};
  }
  const bool done = k0 + kc == p.K;
  for (int64_t j = piece.j0; j < piece.j1;) {
    const int64_t left = piece.j1 - j, cols = min_of(left, left > L ? NV * L : L);
    TileCall<T> c{};
    c.kc = kc, c.C = p.C + piece.i0 * p.ldc + j, c.ldc = p.ldc, c.cols = cols;
    c.add = k0 > 0 || p.e.accumulate;
    c.bias = done && p.e.bias ? p.e.bias + j : nullptr;
    c.activation = done ? p.e.activation : Activation::none;
    c.y = p.e.y ? p.e.y + (c.C - p.C) : nullptr;
    const Matrix<T> B = p.B.at(k0, j);
    T* const sums = p.sums && piece.i0 == 0 ? p.sums + j : nullptr;
    if (cols > L)
      one_panel<T, NV>(c, A, pack, rows, step, B, panel, sums);
    else
      one_panel<T, 1>(c, A, pack, rows, step, B, panel, sums);
    j += cols;
  }
}

template <class T>
void gemm_piece(const Product<T>& p, const Piece& piece, char* scratch) {
  const bool wide = piece.i1 - piece.i0 <= kWideTileRows && piece.j1 - piece.j0 > 2 * kLanes<T>;
  int64_t k0 = 0;
  do {
    const int64_t kc = min_of(kKC, p.K - k0);
    if (wide)
      block_of_piece<T, 4>(p, piece, k0, kc, scratch);
    else
      block_of_piece<T, 2>(p, piece, k0, kc, scratch);
    k0 += kc;
  } while (k0 < p.K);
}

/// Cost in bytes, see run_chunks.
template <class T>
FASTDL_INLINE int64_t gemm_work(const Product<T>& p) {
  return p.M * p.N * max_of(p.K, 1) / 2;
}

/// How many pieces along rows and columns.  One per thread is enough to share the work; a second
/// one each lets a late thread be helped.  Rows are also cut so that a packed block of A fits L2.
struct Grid {
  int64_t rows, cols;
};
/// What the pieces follow: the rows whose packed block of A fits, the height of a tile, the work.
struct Cut {
  int64_t max_rows, tile_rows, work;
};
template <class T>
FASTDL_INLINE Grid grid_for(int64_t M, int64_t N, int64_t K, const Cut& cut) {
  Grid g{ceil_div(M, cut.max_rows / cut.tile_rows * cut.tile_rows), 1};
  const double flop = 2.0 * M * N * K;
  const int64_t team = threads_for(cut.work);
  const int64_t want = team == 1 ? 1 : flop < 20e6 ? team : 2 * team;
  while (g.rows * g.cols < want) {
    const int64_t cols = N / g.cols, rows = M / g.rows;
    if (cols >= 2 * rows && cols >= 8 * kLanes<T>)
      g.cols *= 2;
    else if (rows >= 2 * cut.tile_rows)
      g.rows *= 2;
    else if (cols >= 4 * kLanes<T>)
      g.cols *= 2;
    else
      break;
  }
  return g;
}

/// First element of part `i` of `n` elements cut into `parts`, at multiples of `unit`.
FASTDL_INLINE int64_t part_start(int64_t n, int64_t parts, int64_t unit, int64_t i) {
  return i >= parts ? n : min_of(n, ceil_div(n, unit) * i / parts * unit);
}

/// Calls f(piece, worker) for the pieces of C, on several threads.
template <class T, class F>
FASTDL_INLINE void for_each_piece(const Product<T>& p, const Cut& cut, F&& f) {
  const Grid g = grid_for<T>(p.M, p.N, p.K, cut);
  constexpr int64_t kUnit = 2 * kLanes<T>;
  parallel_for(g.rows * g.cols, cut.work, [&](int64_t chunk, int worker) {
    const int64_t r = chunk % g.rows, c = chunk / g.rows;
    const Piece piece{part_start(p.M, g.rows, cut.tile_rows, r),
                      part_start(p.M, g.rows, cut.tile_rows, r + 1),
                      part_start(p.N, g.cols, kUnit, c), part_start(p.N, g.cols, kUnit, c + 1)};
    if (piece.i0 < piece.i1 && piece.j0 < piece.j1) f(piece, worker);
  });
}

/// C (M x N) = epilogue(A (M x K) B (K x N)).  K = 0 gives the epilogue of zeros.
template <class T>
void gemm(const Product<T>& p, const Workspace& ws) {
  if (p.M == 0 || p.N == 0) return;
  if (is_thin(p)) return gemm_thin(p, ws);
  const int64_t max_rows = kBlockBytesA / (kKC * int64_t{sizeof(T)});
  for_each_piece(p, {max_rows, kTileRows, gemm_work(p)}, [&](const Piece& piece, int worker) {
    if (streams_rows(p))
      one_row(p, piece, ws.of_thread(worker));
    else
      gemm_piece(p, piece, ws.of_thread(worker));
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
