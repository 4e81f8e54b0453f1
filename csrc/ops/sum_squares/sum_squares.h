#pragma once
#include "core/op.h"

namespace fastdl {

/// total = sum_i X_i^2, or with `accumulate` total += sum_i X_i^2          X (*)  ->  total ()
/// cost     1 read
/// numerics squares and sums in double, at every dtype: 32 chains for each 16k elements, their sums
///          and those of the pieces joined by fixed trees, so that 1e8 terms keep 13 digits
/// source   the squared Euclidean norm, for clipping gradients: Pascanu, Mikolov, Bengio, "On the
///          difficulty of training recurrent neural networks", 2013, alg. 1
struct SumSquares {
  static constexpr const char* name = "sum_squares";
  static constexpr int64_t kPiece = 16 * 1024;
  View X, total;
  bool accumulate = false;
  double flops() const { return 2.0 * X.size(); }
  int64_t pieces() const { return (X.size() + kPiece - 1) / kPiece; }
  /// The sums of the pieces.
  Scratch scratch() const { return {8 * pieces(), 0}; }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*", Kind::stored);
    if (op.accumulate)
      v.inout("total", op.total, "", Kind::f64);
    else
      v.out("total", op.total, "", Kind::f64);
    v.attr("accumulate", op.accumulate);
  }
};

}  // namespace fastdl
