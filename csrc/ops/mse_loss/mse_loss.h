#pragma once
#include "core/op.h"

namespace fastdl {

/// loss = (X - T)^2,  total = sum loss / N,  dX = 2 (X - T) / N
///                                              X (*)  T (*)  ->  loss (*)?  total ()?  dX (*)?
/// N is the number of elements for the reduction "mean", else 1.
/// cost     2 reads, and a write of what is asked for
/// numerics 16 lanes per chunk, chunks of a fixed size joined in the same way
/// source   Bishop, "Pattern Recognition and Machine Learning", 2006, eq. 3.12
struct MseLossForward {
  static constexpr const char* name = "mse_loss_forward";
  View X, T, loss, total, dX;
  Reduction reduction = Reduction::mean;
  static constexpr int64_t kChunk = 16 * 1024;
  double flops() const { return 4.0 * double(X.size()); }
  /// One partial sum per chunk.
  Scratch scratch() const { return {(X.size() / kChunk + 1) * size_of(X.dtype), 0}; }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*");
    v.in("T", op.T, "*");
    v.opt_out("loss", op.loss, "*");
    v.opt_out("total", op.total, "");
    v.opt_out("dX", op.dX, "*");
    v.attr("reduction", op.reduction);
  }
};

}  // namespace fastdl
