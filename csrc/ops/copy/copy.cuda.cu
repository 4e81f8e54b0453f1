// copy: 1 read, 1 write; bound by bandwidth.  Bits are moved as unsigned integers of their size.
//   rows        X has stride 1 along its last axis: 16 bytes a thread
//   transposes  stride 1 along another axis p: tiles of 32 x 32 elements through shared memory, so
//               that both sides move whole lines; a column more than a tile has keeps the threads
//               of a warp in different banks
//   others      element by element
#include "cuda/axes.cuh"
#include "ops/copy/copy.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kTile = 32, kTileRows = 8;  // each thread moves 4 elements of a tile

template <class T>
struct Gather {
  Axes<1> axes;
  const T* x;
  T* y;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    Pack<T> packs[1];
    load_packs(axes, {x}, i, n, packs);
    store(y + i, packs[0], n);
  }
};

/// An array as matrices (np, nq) to be transposed: X has stride 1 along p, Y along q.
template <class T>
struct Matrices {
  const T* x;
  T* y;
  int64_t np, nq, ldx, ldy;  // element (p, q) is x[p + q ldx] and y[p ldy + q]
  Axes<2> outer;             // strides in X and Y
};

template <class T>
__global__ void __launch_bounds__(kTile* kTileRows)
    transpose_kernel(const __grid_constant__ Matrices<T> m, unsigned p_tiles, unsigned q_tiles) {
  FASTDL_SHARED(T, tile, kTile * (kTile + 1));
  const int column = int(threadIdx.x) % kTile, first_row = int(threadIdx.x) / kTile;
  const unsigned strip = blockIdx.x / q_tiles;
  const int64_t q0 = int64_t(blockIdx.x % q_tiles) * kTile, p0 = int64_t(strip % p_tiles) * kTile;
  const Place<2, unsigned> at(m.outer, strip / p_tiles);
  const T* x = m.x + at.row[0] + at.index * m.outer.stride[0][0];
  T* y = m.y + at.row[1] + at.index * m.outer.stride[0][1];
  for (int row = first_row; row < kTile; row += kTileRows)
    if (p0 + column < m.np && q0 + row < m.nq)
      tile[row * (kTile + 1) + column] = x[p0 + column + (q0 + row) * m.ldx];
  __syncthreads();
  for (int row = first_row; row < kTile; row += kTileRows)
    if (p0 + row < m.np && q0 + column < m.nq)
      y[(p0 + row) * m.ldy + q0 + column] = tile[column * (kTile + 1) + row];
}

template <class T>
void transpose(const Axes<1>& axes, int p, const T* x, T* y) {
  Matrices<T> m{x, y, axes.size[p], axes.size[0], axes.stride[0][0], 1, {}};
  int64_t ld = 1;
  for (int a = 0; a < axes.rank; ld *= axes.size[a++]) {
    if (a == p) m.ldy = ld;
    if (a == p || a == 0) continue;
    m.outer.size[m.outer.rank] = axes.size[a];
    m.outer.stride[m.outer.rank][0] = axes.stride[a][0];
    m.outer.stride[m.outer.rank++][1] = ld;
  }
  if (m.outer.rank == 0) m.outer.size[m.outer.rank++] = 1;
  const int64_t p_tiles = ceil_div(m.np, kTile), q_tiles = ceil_div(m.nq, kTile);
  const int64_t matrices = ld / (m.np * m.nq);
  launch(&transpose_kernel<T>, matrices * p_tiles * q_tiles, kTile * kTileRows, m,
         unsigned(p_tiles), unsigned(q_tiles));
}

template <class T>
void copy_all(const Copy& op) {
  const Axes<1> axes = merged_axes<1>({&op.X});
  const T* x = op.X.as<T>();
  T* y = op.Y.as<T>();
  if (axes.stride[0][0] != 1)
    for (int p = 1; p < axes.rank; ++p)
      if (axes.stride[p][0] == 1) return transpose(axes, p, x, y);
  for_each_pack<T>(op.X.size(), Gather<T>{axes, x, y});
}

}  // namespace

void copy(const Copy& op, const Workspace&) {
  if (op.X.size() == 0) return;
  switch (size_of(op.X.dtype)) {
    case 1:
      return copy_all<uint8_t>(op);
    case 2:
      return copy_all<uint16_t>(op);
    case 4:
      return copy_all<uint32_t>(op);
    default:
      return copy_all<uint64_t>(op);
  }
}

}  // namespace fastdl::FASTDL_ISA
