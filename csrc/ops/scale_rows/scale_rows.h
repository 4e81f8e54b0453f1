#pragma once
#include "core/op.h"

namespace fastdl {

/// Y_ij = X_ij s_i, or X_ij s when there is one s            X (B,C)  s (B or 1)  ->  Y (B,C)
/// cost     1 read, 1 write; Y may be X
/// numerics one product per element; X and Y may be bf16, with s in f32
struct ScaleRows {
  static constexpr const char* name = "scale_rows";
  static constexpr bool inplace = true;
  View X, s, Y;
  double flops() const { return double(X.size()); }
  void validate() const {
    if (s.shape[0] != 1 && s.shape[0] != X.shape[0])
      fail_value("scale_rows: s must have 1 element or B = %lld (from X), got %lld",
                 static_cast<long long>(X.shape[0]), static_cast<long long>(s.shape[0]));
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "B C", Kind::stored);
    v.in("s", op.s, "S");
    v.out("Y", op.Y, "B C", Kind::stored);
  }
};

}  // namespace fastdl
