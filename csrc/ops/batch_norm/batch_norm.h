#pragma once
#include "core/op.h"
#include "ops/batch_norm/batch_norm.plan.h"

namespace fastdl {

/// Throws unless the activation is one whose derivative follows from the sign of Z.
FASTDL_INLINE void check_activation(const char* op, Activation activation) {
  if (activation == Activation::tanh)
    fail_value("%s: activation must be none or relu, got tanh", op);
}

/// Y = act(gamma rstd (X - mean) + beta), for each channel over N and S;  rstd = 1 / sqrt(var + eps)
///      X (N,C,S)  gamma (C)?  beta (C)?  running_mean (C)?  running_var (C)?  num_batches ()?
///      -> Y (N,C,S)  mean (C)?  rstd (C)?
/// training   mean and var (biased) of the batch; the running statistics r move to the batch's mean
///            and unbiased variance: r += f (new - r), f = momentum, or with a negative momentum
///            1 / num_batches (the cumulative average).  num_batches counts.  An empty batch
///            changes no statistics.
/// inference  mean and var are the running statistics
/// X and Y may be bf16, with f32 for the others.
/// cost     training 2 reads (the second from L2 where a channel fits), 1 write; inference 1 and 1
/// numerics the mean is a sum in double over blocks, the variance is merged from blocks (never
///          E[x^2] - E[x]^2); blocks depend on the shape alone
/// source   Ioffe & Szegedy, "Batch normalization", 2015, alg. 1; Chan, Golub & LeVeque 1983
struct BatchNormForward {
  static constexpr const char* name = "batch_norm_forward";
  View X, gamma, beta, running_mean, running_var, num_batches, Y, mean, rstd;
  double eps = 1e-5, momentum = 0.1;
  bool training = true;
  Activation activation = Activation::none;
  double flops() const { return (training ? 7.0 : 2.0) * X.size(); }
  Scratch scratch() const { return BatchNormPlan(X).scratch(); }
  void validate() const {
    check_activation(name, activation);
    if (training && X.shape[0] * X.shape[2] == 1)
      fail_value(
          "batch_norm_forward: X must have more than 1 value per channel in training, got "
          "%s(1, %lld, 1)",
          X.dtype == DType::bf16  ? "bfloat16"
          : X.dtype == DType::f32 ? "float32"
                                  : "float64",
          static_cast<long long>(X.shape[1]));
    if (!training && !(running_mean && running_var))
      fail_value("batch_norm_forward: %s must be given when training is False, got nothing",
                 running_mean ? "running_var" : "running_mean");
    if (training && momentum < 0 && (running_mean || running_var) && !num_batches)
      fail_value(
          "batch_norm_forward: num_batches must be given for a cumulative average (negative "
          "momentum), got nothing");
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "N C S", Kind::stored);
    v.opt("gamma", op.gamma, "C");
    v.opt("beta", op.beta, "C");
    v.opt_inout("running_mean", op.running_mean, "C");
    v.opt_inout("running_var", op.running_var, "C");
    v.opt_inout("num_batches", op.num_batches, "", Kind::i64);
    v.out("Y", op.Y, "N C S", Kind::stored);
    v.opt_out("mean", op.mean, "C");
    v.opt_out("rstd", op.rstd, "C");
    v.attr("eps", op.eps);
    v.attr("momentum", op.momentum);
    v.attr("training", op.training);
    v.attr("activation", op.activation);
  }
};

/// dZ = dY act'(Z),  dbeta = sum dZ,  dgamma = sum dZ xhat,  xhat = (X - mean) rstd, M = N S:
/// dX = gamma rstd (dZ - dbeta / M - xhat dgamma / M) in training, gamma rstd dZ in inference
///      dY (N,C,S)  X (N,C,S)  gamma (C)?  beta (C)?  mean (C)  rstd (C)
///      -> dX (N,C,S)?  dgamma (C)?  dbeta (C)?
/// beta matters to an activation alone: Z is computed again, by the forward's operations on the
/// forward's numbers, so that its sign is the forward's to the last bit.
/// dY, X and dX may be bf16, with f32 for the others.
/// cost     training 4 reads (the second two from L2 where a channel fits), 1 write
/// numerics sums as the forward's; with `accumulate` dgamma and dbeta are added to, dX is stored
/// source   docs/derivations/batch_norm.md
struct BatchNormBackward {
  static constexpr const char* name = "batch_norm_backward";
  View dY, X, gamma, beta, mean, rstd, dX, dgamma, dbeta;
  bool training = true;
  Activation activation = Activation::none;
  bool accumulate = false;
  double flops() const { return 9.0 * X.size(); }
  Scratch scratch() const { return BatchNormPlan(X).scratch(); }
  void validate() const { check_activation(name, activation); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "N C S", Kind::stored);
    v.in("X", op.X, "N C S", Kind::stored);
    v.opt("gamma", op.gamma, "C");
    v.opt("beta", op.beta, "C");
    v.in("mean", op.mean, "C");
    v.in("rstd", op.rstd, "C");
    v.opt_out("dX", op.dX, "N C S", Kind::stored);
    v.opt_sum("dgamma", op.dgamma, "C", op.accumulate);
    v.opt_sum("dbeta", op.dbeta, "C", op.accumulate);
    v.attr("training", op.training);
    v.attr("activation", op.activation);
    v.attr("accumulate", op.accumulate);
  }
};

}  // namespace fastdl
