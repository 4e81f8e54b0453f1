#pragma once
#include "core/op.h"

namespace fastdl {

/// Y_nm = sum_r X_nrm / count                                        X (N,R,M)  ->  Y (N,M)
/// cost     1 read; bound by bandwidth
/// numerics chains of 16 terms in X's dtype, joined in double; one division and one rounding at the
///          end, so a mean is as exact as a sum
/// source   Higham, "The accuracy of floating point summation", 1993 (blocked summation)
struct SumForward {
  static constexpr const char* name = "sum_forward";
  View X, Y;
  int64_t count = 1;

  static constexpr int64_t kPieceElements = 16 * 1024, kPanel = 512, kChain = 16, kMaxPieces = 64;

  /// Columns that divide 16 are summed as 16 interleaved ones.
  FASTDL_INLINE bool thin() const {
    const int64_t M = X.shape[2];
    return M == 1 || M == 2 || M == 4 || M == 8 || M == 16;
  }
  /// Values of r that a piece has: its borders depend on the shape alone.  Wide pieces leave M
  /// partial sums each, so there are at most kMaxPieces of them.
  FASTDL_INLINE int64_t piece_rows() const {
    const int64_t R = X.shape[1], M = X.shape[2];
    if (thin()) return kPieceElements / M;
    int64_t rows = kPieceElements / (M < kPanel ? (M ? M : 1) : kPanel);
    const int64_t share = (R + kMaxPieces - 1) / kMaxPieces;
    if (rows < share) rows = share;
    return (rows + kChain - 1) / kChain * kChain;
  }
  FASTDL_INLINE int64_t pieces() const {
    const int64_t rows = piece_rows(), n = (X.shape[1] + rows - 1) / rows;
    return n ? n : 1;
  }

  double flops() const { return double(X.size()); }
  /// The partial sums of the pieces.
  Scratch scratch() const { return {pieces() > 1 ? pieces() * Y.size() * 8 : 0, 0}; }
  void validate() const {
    if (count < 0) fail_value("sum_forward: count must be >= 0, got %lld", (long long)count);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "N R M");
    v.out("Y", op.Y, "N M");
    v.attr("count", op.count);
  }
};

}  // namespace fastdl
