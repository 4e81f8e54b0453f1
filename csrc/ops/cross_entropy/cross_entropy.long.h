#pragma once
// Rows of cross_entropy that are longer than the L2 cache: pieces of a fixed size, each with its own
// maximum and its sums about that, which are merged in order (Milakov, Gimelshein, "Online normalizer
// calculation for softmax", 2018); then exp again, straight into dX, last piece first.  Two reads and
// one write instead of three and two.  The pieces of one row are shared among threads.
#include "ops/cross_entropy/cross_entropy.rows.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// The sums over a piece about `base`: its maximum, but 0 where all of it is -inf.
template <class T>
struct Part {
  T hi, base;
  Sums<T> sums;
};

template <Target K, class T>
FASTDL_INLINE Part<T> part_of(const Call<T>& c, Row<T> r, int64_t first, int64_t n) {
  const T lowest = T(-__builtin_inf()), hi = row_max(r.x + first, n);
  const T base = hi == lowest ? T(0) : hi;
  // The class weights go along with the logits.
  Call<T> piece = c;
  if (c.w) piece.w = c.w + first;
  r.x += first;
  if (r.p) r.p += first;
  const auto ahead = [&](int64_t j, int64_t count, const auto&)
                         FASTDL_UNROLLED { fetch(r.x + n + j, count); };
  return {hi, base, exp_sums<K>(piece, r, n, base, ahead)};
}

/// The sums about the maximum of all parts.
template <class T>
FASTDL_INLINE Sums<T> merged(const Part<T>* part, int64_t parts, T* max) {
  T hi = part[0].hi;
  for (int64_t i = 1; i < parts; ++i) hi = part[i].hi > hi ? part[i].hi : hi;
  double e = 0, qz = 0, q = 0;
  for (int64_t i = 0; i < parts; ++i) {
    const Vec<T> down = broadcast(part[i].base - hi);
    const Sums<T>& s = part[i].sums;
    // A part of -inf alone has the base 0, which may lie above the maximum.
    if (s.e != 0) e += double(s.e) * double(exp_of_negative<T>(down)[0]);
    qz += double(s.qz) + double(silenced<T>(broadcast(s.q), down)[0]);
    q += double(s.q);
  }
  *max = hi;
  return {T(e), T(qz), T(q)};
}

template <Target K, class T>
void long_row(const Call<T>& c, int64_t i, Part<T>* part) {
  constexpr int64_t kPiece = CrossEntropyForward::kPiece;
  const int64_t parts = ceil_div(c.C, kPiece), work = 5 * c.C + c.row_bytes();
  const Row<T> r = Row<T>::template at<K>(c, i);
  Group<T> group;
  if (is_ignored(c, r)) {
    ignore_row(c, r, group, 0);
    return finish_group(c, group, i, 1);
  }
  parallel_for(parts, work, [&](int64_t p, int) {
    part[p] = part_of<K>(c, r, p * kPiece, min_of(kPiece, c.C - p * kPiece));
  });
  T hi;
  const Sums<T> sums = merged(part, parts, &hi);
  const Slope<K, T> slope{&c, r, finish_row<K>(c, r, sums, hi, group, 0)};
  finish_group(c, group, i, 1);
  if (!r.dx) return;
  const Vec<T> shift = broadcast(hi);
  parallel_for(parts, work + c.row_bytes(), [&](int64_t p, int) {
    const int64_t first = (parts - 1 - p) * kPiece, n = min_of(kPiece, c.C - first);
    const auto value = [&](int64_t j, int64_t lanes) FASTDL_UNROLLED {
      const Vec<T> z = load(r.x + first + j, lanes) - shift;
      return slope(first + j, lanes, exp_of_negative<T>(z));
    };
    c.stream ? write_row<true>(r.dx + first, n, value) : write_row<false>(r.dx + first, n, value);
    if (c.stream) stream_fence();
  });
  if (!r.p) r.dx[r.t] = slope.at_label(exp_of_negative<T>(broadcast(r.x[r.t] - hi))[0]);
}

template <Target K, class T>
void long_rows(const Call<T>& c, const Workspace& ws) {
  const int64_t losses = 2 * aligned_bytes(c.B * int64_t(sizeof(T)));
  Part<T>* part = reinterpret_cast<Part<T>*>(ws.shared + losses);
  for (int64_t i = 0; i < c.B; ++i) long_row<K>(c, i, part);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
