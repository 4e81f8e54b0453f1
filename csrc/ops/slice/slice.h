#pragma once
#include "core/op.h"

namespace fastdl {

/// dX_nrm = dY_nkm where r = start + k step, 0 for the other r           dY (N,K,M)  ->  dX (N,R,M)
/// The forward pass is the view x[start : start + K step : step] or a copy of it.
/// cost     1 read, 1 write
/// numerics exact
/// source   docs/derivations/slice.md
struct SliceBackward {
  static constexpr const char* name = "slice_backward";
  View dY, dX;
  int64_t start = 0, step = 1;
  void validate() const {
    const int64_t K = dY.shape[1], R = dX.shape[1];
    if (K > 1 && step == 0) fail_value("slice_backward: step must not be 0, got 0");
    const bool starts = start >= 0 && start < R;
    if (K && !(starts && (K == 1 || K - 1 <= (step > 0 ? R - 1 - start : -start) / step)))
      fail_value(
          "slice_backward: start and step must stay in [0, %lld), got %lld places from %lld "
          "by %lld",
          (long long)R, (long long)K, (long long)start, (long long)step);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "N K M", Kind::stored);
    v.out("dX", op.dX, "N R M", Kind::stored);
    v.attr("start", op.start);
    v.attr("step", op.step);
  }
};

}  // namespace fastdl
