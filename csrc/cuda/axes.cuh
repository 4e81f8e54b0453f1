#pragma once
// Arrays of any strides, walked in the order of a contiguous result.  Axes that lie behind one
// another in all arrays (a broadcast one has stride 0) are merged, so that most calls have one or
// two left.
#include "cuda/pack.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

/// Innermost first; at least one axis.  Strides in elements.
template <int kArrays>
struct Axes {
  int64_t size[View::kMaxRank], stride[View::kMaxRank][kArrays];
  int rank = 0;
};

template <int kArrays>
Axes<kArrays> merged_axes(const View* const (&arrays)[kArrays]) {
  Axes<kArrays> m{};
  for (int i = arrays[0]->rank - 1; i >= 0; --i) {
    const int64_t size = arrays[0]->shape[i];
    if (size == 1) continue;
    bool joins = m.rank > 0;
    for (int k = 0; k < kArrays && joins; ++k)
      joins = arrays[k]->stride[i] == m.stride[m.rank - 1][k] * m.size[m.rank - 1];
    if (joins) {
      m.size[m.rank - 1] *= size;
      continue;
    }
    m.size[m.rank] = size;
    for (int k = 0; k < kArrays; ++k) m.stride[m.rank][k] = arrays[k]->stride[i];
    ++m.rank;
  }
  if (m.rank == 0) {
    m.size[m.rank] = 1;
    for (int k = 0; k < kArrays; ++k) m.stride[m.rank][k] = 1;
    ++m.rank;
  }
  return m;
}

/// Where element i is: its index along the innermost axis, and where that row starts in each array.
/// I holds the number of elements: quotients of 64 bits cost a call.
template <int kArrays, class I = int64_t>
struct Place {
  int64_t index, row[kArrays] = {};

  FASTDL_DEVICE Place(const Axes<kArrays>& axes, I i) {
    index = i % I(axes.size[0]);
    i /= I(axes.size[0]);
    for (int a = 1; a < axes.rank; ++a) {
      const int64_t at = i % I(axes.size[a]);
      for (int k = 0; k < kArrays; ++k) row[k] += at * axes.stride[a][k];
      i /= I(axes.size[a]);
    }
  }
};

/// Elements index .. index + n - 1 of a row.
template <class T>
FASTDL_DEVICE Pack<T> load_strided(const T* row, int64_t stride, int64_t index, int64_t n) {
  if (stride == 1) return load(row + index, n);
  Pack<T> pack;
  unroll<kPack<T>>([&](int k) { pack.at[k] = k < n ? row[(index + k) * stride] : T(0); });
  return pack;
}

/// A pack of elements of each array, in the order of the result, into packs[0 .. kArrays - 1].
template <class T, int kArrays>
FASTDL_DEVICE void load_packs(const Axes<kArrays>& axes, const T* const (&arrays)[kArrays],
                              int64_t i, int64_t n, Pack<T> (&packs)[kArrays]) {
  const Place<kArrays> at(axes, i);
  n = min_of<int64_t>(n, kPack<T>);
  if (at.index + n <= axes.size[0]) {
    for (int k = 0; k < kArrays; ++k)
      packs[k] = load_strided(arrays[k] + at.row[k], axes.stride[0][k], at.index, n);
    return;
  }
  for (int e = 0; e < n; ++e) {  // the pack goes on in the next row
    const Place<kArrays> one(axes, i + e);
    for (int k = 0; k < kArrays; ++k)
      packs[k].at[e] = arrays[k][one.row[k] + one.index * axes.stride[0][k]];
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
