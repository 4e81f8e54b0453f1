#pragma once
#include "core/op.h"

namespace fastdl {

/// d = X - T,  loss = d^2 / (2 beta) where |d| < beta, else |d| - beta / 2;  total = sum loss / N,
/// dX = d / beta where |d| < beta, else sign d, over N
///                                              X (*)  T (*)  ->  loss (*)?  total ()?  dX (*)?
/// N is the number of elements for the reduction "mean", else 1; beta = 0 gives |d|.
/// cost     2 reads, and a write of what is asked for
/// numerics 16 lanes per chunk, chunks of a fixed size joined in the same way
/// source   Girshick, "Fast R-CNN", 2015, eq. 3
struct SmoothL1LossForward {
  static constexpr const char* name = "smooth_l1_loss_forward";
  View X, T, loss, total, dX;
  Reduction reduction = Reduction::mean;
  double beta = 1;
  static constexpr int64_t kChunk = 16 * 1024;
  double flops() const { return 8.0 * double(X.size()); }
  /// One partial sum per chunk.
  Scratch scratch() const { return {(X.size() / kChunk + 1) * size_of(X.dtype), 0}; }
  void validate() const {
    if (!(beta >= 0)) fail_value("smooth_l1_loss_forward: beta must be >= 0, got %g", beta);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*");
    v.in("T", op.T, "*");
    v.opt_out("loss", op.loss, "*");
    v.opt_out("total", op.total, "");
    v.opt_out("dX", op.dX, "*");
    v.attr("reduction", op.reduction);
    v.attr("beta", op.beta);
  }
};

}  // namespace fastdl
