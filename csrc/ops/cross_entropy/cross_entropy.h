#pragma once
#include "core/op.h"

namespace fastdl {

/// log p_ic = X_ic - max_c X_ic - ln sum_c exp(X_ic - max_c X_ic)
/// loss_i   = -sum_c w_c q_ic log p_ic
/// dX_ic    = (p_ic sum_c' w_c' q_ic' - w_c q_ic) / N
///     X (B,C), labels t (B) or probabilities P (B,C), w (C)?  ->  loss (B)? total ()? dX (B,C)?
/// q is onehot(t) or P, smoothed: (1 - s) q + s / C, where for labels the first term weighs w_t.
/// Rows with t = ignore_index count for nothing.  total = sum_i loss_i / N; N = 1 unless the
/// reduction is "mean", then the sum of w_t over the rows that count, or B for probabilities.
/// X and dX may be bf16, with f32 for the others.
/// cost     1 read, 1 write while a row fits the cache; loss alone: 1 read
/// numerics shifted by the maximum, so nothing overflows; no difference of large terms: log p is
///          split as (X - max) - ln sum, both of one sign; 0 * inf in w q log p counts as 0
/// source   Bridle, "Probabilistic interpretation of feedforward classification network outputs",
///          1990; Szegedy et al., "Rethinking the Inception architecture", 2016 (smoothing)
struct CrossEntropyForward {
  static constexpr const char* name = "cross_entropy_forward";
  static constexpr int64_t kLongRowBytes = 1 << 20;  // longer rows are done in pieces
  static constexpr int64_t kPiece = 4 * 1024;        // 16 KiB of f32: a third of an L1 cache
  static constexpr const char* kBadLabel =
      "cross_entropy_forward: t must be in [0, %2$lld) or ignore_index, got %1$lld at row %3$lld";
  View X, t, P, w, loss, total, dX;
  int64_t ignore_index = -100;
  double label_smoothing = 0;
  Reduction reduction = Reduction::mean;

  double flops() const { return 20.0 * double(X.size()); }
  static FASTDL_INLINE int64_t scratch_row_bytes(int64_t C, int64_t size) {
    return aligned_bytes(C * size);
  }
  /// Per-row losses and row weights; then the sums of the pieces of a long row, or two rows of
  /// exp(X - max) on their way to dX.
  Scratch scratch() const {
    const int64_t size = size_of(compute_dtype(X.dtype)), rows = aligned_bytes(X.shape[0] * size);
    const int64_t C = X.shape[1];
    if (C * size > kLongRowBytes) return {2 * rows + 5 * size * (C / kPiece + 1), 0};
    return {2 * rows, 2 * scratch_row_bytes(C, size)};
  }
  void validate() const {
    if (bool(t) == bool(P))
      fail_value("cross_entropy_forward: exactly one of t and P must be given, got %s",
                 t ? "both" : "neither");
    if (!(label_smoothing >= 0 && label_smoothing <= 1))
      fail_value("cross_entropy_forward: label_smoothing must be in [0, 1], got %g",
                 label_smoothing);
    if (!t || !t.on_host()) return;  // on a device the kernel looks at the labels
    t.dtype == DType::i32 ? validate_labels<int32_t>() : validate_labels<int64_t>();
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "B C", Kind::stored);
    v.opt("t", op.t, "B", Kind::index);
    v.opt("P", op.P, "B C");
    v.opt("w", op.w, "C");
    v.opt_out("loss", op.loss, "B");
    v.opt_out("total", op.total, "");
    v.opt_out("dX", op.dX, "B C", Kind::stored);
    v.attr("ignore_index", op.ignore_index);
    v.attr("label_smoothing", op.label_smoothing);
    v.attr("reduction", op.reduction);
  }

 private:
  template <class I>
  void validate_labels() const {
    const I* label = t.as<I>();
    const int64_t B = t.shape[0], C = X.shape[1];
    for (int64_t i = 0; i < B; ++i)
      if (uint64_t(label[i]) >= uint64_t(C) && label[i] != ignore_index)
        fail_value(kBadLabel, (long long)label[i], (long long)C, (long long)i);
  }
};

}  // namespace fastdl
