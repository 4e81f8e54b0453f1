#pragma once
#include "core/op.h"

namespace fastdl {

/// Throws unless every index is in [0, R); on a device the kernel looks at them.
template <class I>
FASTDL_INLINE void check_indices(const char* text, const View& index, int64_t R) {
  const I* p = index.as<I>();
  const int64_t size = index.size();
  for (int64_t i = 0; i < size; ++i)
    if (uint64_t(p[i]) >= uint64_t(R))
      fail_value(text, (long long)p[i], (long long)R, (long long)i);
}
FASTDL_INLINE void check_indices(const char* text, const View& index, int64_t R) {
  if (!index.on_host()) return;
  index.dtype == DType::i32 ? check_indices<int32_t>(text, index, R)
                            : check_indices<int64_t>(text, index, R);
}

/// Y_nkm = X_n,t,m where t = index_nkm              X (N,R,M), index (N,K,M)  ->  Y (N,K,M)
/// cost     1 read of index, a read for each of its elements, 1 write
/// numerics exact
/// source   -
struct GatherForward {
  static constexpr const char* name = "gather_forward";
  static constexpr const char* kBadIndex =
      "gather_forward: index must be in [0, %2$lld), the size of X along dim, got %1$lld at "
      "element %3$lld";
  View X, index, Y;
  void validate() const { check_indices(kBadIndex, index, X.shape[1]); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "N R M");
    v.in("index", op.index, "N K M", Kind::index);
    v.out("Y", op.Y, "N K M");
  }
};

/// dX_nrm = sum_k dY_nkm where index_nkm = r       dY (N,K,M), index (N,K,M)  ->  dX (N,R,M)
/// cost     1 read of dY and index, 1 write of dX and an addition for each element of dY
/// numerics the terms of one element are added in the order of k, from 0 on
/// source   docs/derivations/gather.md
struct GatherBackward {
  static constexpr const char* name = "gather_backward";
  static constexpr const char* kBadIndex =
      "gather_backward: index must be in [0, %2$lld), the size of X along dim, got %1$lld at "
      "element %3$lld";
  View dY, index, dX;
  double flops() const { return double(dY.size()); }
  void validate() const { check_indices(kBadIndex, index, dX.shape[1]); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "N K M");
    v.in("index", op.index, "N K M", Kind::index);
    v.out("dX", op.dX, "N R M");
  }
};

}  // namespace fastdl
