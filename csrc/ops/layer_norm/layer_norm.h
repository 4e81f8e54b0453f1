#pragma once
#include "core/op.h"

namespace fastdl {

/// Y_ij = gamma_j xhat_ij + beta_j,  xhat_ij = (X_ij - mean_i) rstd_i,  rstd_i = 1 / sqrt(var_i + eps)
///      X (B,n)  gamma (n)?  beta (n)?  ->  Y (B,n)  mean (B)?  rstd (B)?
/// with the mean and the biased variance of each row.  X and Y may be bf16, with f32 for the others.
/// cost     1 read, 1 write while a row fits the cache
/// numerics two passes: the squares and the sum of X - m, m the rounded mean, which correct each other,
///          so that a row of equal numbers has variance 0 at any offset; what the mean loses when it
///          is rounded is added to xhat.  Sums in 16 lanes, several chains and blocks
/// source   Ba, Kiros & Hinton, "Layer normalization", 2016, eq. 4; Chan, Golub & LeVeque, "Algorithms
///          for computing the sample variance", 1983, eq. 1.7
struct LayerNormForward {
  static constexpr const char* name = "layer_norm_forward";
  View X, gamma, beta, Y, mean, rstd;
  double eps = 1e-5;
  double flops() const { return 8.0 * double(X.size()); }
  /// A row of ones or zeros in the place of gamma or beta.
  Scratch scratch() const {
    return {gamma && beta ? 0 : 2 * aligned_bytes(X.shape[1] * size_of(X.dtype)), 0};
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "B n", Kind::stored);
    v.opt("gamma", op.gamma, "n");
    v.opt("beta", op.beta, "n");
    v.out("Y", op.Y, "B n", Kind::stored);
    v.opt_out("mean", op.mean, "B");
    v.opt_out("rstd", op.rstd, "B");
    v.attr("eps", op.eps);
  }
};

/// g = gamma dY,  dgamma_j = sum_i dY_ij xhat_ij,  dbeta_j = sum_i dY_ij,
/// dX_ij = rstd_i (g_ij - sum_k g_ik / n - xhat_ij sum_k g_ik xhat_ik / n)
///      dY (B,n)  X (B,n)  gamma (n)?  mean (B)  rstd (B)  ->  dX (B,n)?  dgamma (n)?  dbeta (n)?
/// dY, X and dX may be bf16, with f32 for the others.
/// cost     2 reads, 1 write while a few rows fit the cache
/// numerics sums over a row as the forward's; dgamma and dbeta are sums over blocks of rows, joined in
///          double; with `accumulate` they are added to, dX is stored
/// source   docs/derivations/layer_norm.md
struct LayerNormBackward {
  static constexpr const char* name = "layer_norm_backward";
  /// Blocks of rows leave a sum each for dgamma and dbeta: on the CPU one for kMostRows rows, or fewer
  /// rows while a batch has not kBlocks blocks; on a GPU kGrid of them walk over the rows.
  static constexpr int64_t kBlocks = 16, kLeastRows = 16, kMostRows = 64, kGrid = 264;
  View dY, X, gamma, mean, rstd, dX, dgamma, dbeta;
  bool accumulate = false;

  FASTDL_INLINE int64_t block_rows() const {
    const int64_t rows = (X.shape[0] / kBlocks + 3) / 4 * 4;
    return rows < kLeastRows ? kLeastRows : rows > kMostRows ? kMostRows : rows;
  }
  FASTDL_INLINE int64_t blocks() const { return (X.shape[0] + block_rows() - 1) / block_rows(); }
  double flops() const { return 12.0 * double(X.size()); }
  FASTDL_INLINE int64_t grid() const { return X.shape[0] < kGrid ? X.shape[0] : kGrid; }
  /// A row of ones in the place of gamma, and the sums of the blocks.
  Scratch scratch() const {
    const int64_t row = X.shape[1] * size_of(compute_dtype(X.dtype));
    return {aligned_bytes(row) + 2 * row * (blocks() > grid() ? blocks() : grid()), 0};
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "B n", Kind::stored);
    v.in("X", op.X, "B n", Kind::stored);
    v.opt("gamma", op.gamma, "n");
    v.in("mean", op.mean, "B");
    v.in("rstd", op.rstd, "B");
    v.opt_out("dX", op.dX, "B n", Kind::stored);
    v.opt_sum("dgamma", op.dgamma, "n", op.accumulate);
    v.opt_sum("dbeta", op.dbeta, "n", op.accumulate);
    v.attr("accumulate", op.accumulate);
  }
};

}  // namespace fastdl
