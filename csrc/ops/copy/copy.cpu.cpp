// copy: axes that lie behind one another in both arrays are merged; then blocks of two axes (p, q),
// q the last, where X has stride 1 along one of them if it has it at all:
//   along q  rows, by memcpy
//   along p  a transpose: L x L tiles in registers, so that both sides move whole vectors
//   neither  element by element
// 1 read, 1 write; bound by bandwidth.  Transposes go in blocks of 64 x 64: 64 rows of X and of Y
// stay within the TLB, and the lines of X that a tile uses in part are still in L1 for the next.
#include "ops/copy/copy.h"

#include "cpu/loop.h"
#include "cpu/transpose.h"

namespace fastdl::FASTDL_ISA {
namespace {

struct Axis {
  int64_t size, x, y;  // strides in elements
};

/// The axes of a copy, outermost first: `outer` of them, then p and q.
struct Layout {
  Axis axis[View::kMaxRank + 2];
  int rank = 0;

  int64_t outer_size() const {
    int64_t n = 1;
    for (int i = 0; i < rank - 2; ++i) n *= axis[i].size;
    return n;
  }
};

/// Drops axes of one element and merges neighbours; at least two axes remain.
FASTDL_INLINE Layout merged_axes(const View& X) {
  Axis kept[View::kMaxRank];  // innermost first
  int n = 0;
  int64_t y = 1;
  for (int i = X.rank - 1; i >= 0; --i) {
    const Axis a{X.shape[i], X.stride[i], y};
    y *= a.size;
    if (a.size == 1) continue;
    if (n && a.x == kept[n - 1].x * kept[n - 1].size)
      kept[n - 1].size *= a.size;
    else
      kept[n++] = a;
  }
  Layout l;
  while (n + l.rank < 2) l.axis[l.rank++] = {1, 0, 0};
  while (n) l.axis[l.rank++] = kept[--n];
  if (l.axis[l.rank - 1].y != 1) l.axis[l.rank - 1] = {1, 1, 1};
  return l;
}

/// If X has stride 1 along another axis than the last, that axis becomes p.
FASTDL_INLINE void choose_p(Layout& l) {
  if (l.axis[l.rank - 1].x == 1) return;
  for (int i = 0; i < l.rank - 2; ++i) {
    if (l.axis[i].x != 1) continue;
    const Axis p = l.axis[i];
    for (; i < l.rank - 2; ++i) l.axis[i] = l.axis[i + 1];
    l.axis[l.rank - 2] = p;
  }
}

/// y[i * ldy + k] = x[k * ldx + i] for i < np, k < nq.
template <class T>
FASTDL_INLINE void transpose_block(const T* x, int64_t ldx, T* y, int64_t ldy, int64_t np,
                                   int64_t nq) {
  if constexpr (sizeof(T) >= 4)
    if (nq >= kSide<T>) return pack_transposed(x, ldx, nq, np, y, ldy);
  for (int64_t p = 0; p < np; ++p)
    for (int64_t q = 0; q < nq; ++q) y[p * ldy + q] = x[q * ldx + p];
}

template <class T>
FASTDL_INLINE void copy_block(const T* x, const Axis& p, const Axis& q, T* y, int64_t np,
                              int64_t nq) {
  if (q.x == 1) {
    for (int64_t i = 0; i < np; ++i) __builtin_memcpy(y + i * p.y, x + i * p.x, nq * sizeof(T));
  } else if (p.x == 1 && np > 1) {
    transpose_block(x, q.x, y, p.y, np, nq);
  } else {
    for (int64_t i = 0; i < np; ++i)
      for (int64_t k = 0; k < nq; ++k) y[i * p.y + k] = x[i * p.x + k * q.x];
  }
}

template <class T>
void copy_all(const Copy& op) {
  Layout l = merged_axes(op.X);
  choose_p(l);
  const Axis p = l.axis[l.rank - 2], q = l.axis[l.rank - 1];
  const bool tiles = q.x != 1 && p.x == 1;
  const int64_t bq = tiles ? 64 : min_of(q.size, kFlatChunk);
  const int64_t bp = tiles ? 64 : max_of(1, kFlatChunk / bq);
  const int64_t np = ceil_div(p.size, bp), nq = ceil_div(q.size, bq);
  const T* x = op.X.as<T>();
  T* y = op.Y.as<T>();
  parallel_for(l.outer_size() * np * nq, 2 * op.X.bytes(), [&](int64_t chunk, int) {
    const int64_t k = chunk % nq * bq, i = chunk / nq % np * bp;
    const T* from = x + i * p.x + k * q.x;
    T* to = y + i * p.y + k;
    int64_t index = chunk / nq / np;
    for (int a = l.rank - 3; a >= 0; index /= l.axis[a--].size) {
      const int64_t at = index % l.axis[a].size;
      from += at * l.axis[a].x, to += at * l.axis[a].y;
    }
    copy_block(from, p, q, to, min_of(bp, p.size - i), min_of(bq, q.size - k));
  });
}

}  // namespace

// Bits are moved as the float of their size: loads, shuffles and stores leave them as they are.
void copy(const Copy& op, const Workspace&) {
  if (op.X.size() == 0) return;
  switch (size_of(op.X.dtype)) {
    case 1:
      return copy_all<uint8_t>(op);
    case 2:
      return copy_all<uint16_t>(op);
    case 4:
      return copy_all<float>(op);
    default:
      return copy_all<double>(op);
  }
}

}  // namespace fastdl::FASTDL_ISA
