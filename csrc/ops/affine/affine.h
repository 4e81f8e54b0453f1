#pragma once
#include "core/gemm_plan.h"
#include "core/op.h"

namespace fastdl {

/// Y = act(X W + b)                                  X (B,n)  W (n,m)  b (m)?  ->  Y (B,m)
/// cost     2 B n m flop, one pass: bias and activation ride in the GEMM epilogue
/// numerics each Y_ij is one fma chain over k ascending per block of kKC, the blocks added in
///          order: the bits do not depend on tiling, threads, B or vector width; in bf16 X and W
///          are rounded to bf16 first, and the sum has the order of cpu/gemm_bf16.h
/// source   Goodfellow, Bengio, Courville, "Deep Learning", 2016, ch. 6
struct AffineForward {
  static constexpr const char* name = "affine_forward";
  View X, W, b, Y;
  Activation activation = Activation::none;
  Precision precision = Precision::full;
  double flops() const { return 2.0 * X.shape[0] * X.shape[1] * W.shape[1]; }
  Scratch scratch() const { return {0, gemm_thread_bytes()}; }
  void validate() const { check_precision(name, precision, X.dtype); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "B n");
    v.in("W", op.W, "n m");
    v.opt("b", op.b, "m");
    v.out("Y", op.Y, "B m");
    v.attr("activation", op.activation);
    v.attr("precision", op.precision);
  }
};

/// dZ = dY act'(Z);  dX = (dZ W^T) act_below'(X),  dW = X^T dZ,  db = sum_i dZ_i
///                        dY (B,m)  X (B,n)  W (n,m)  Y (B,m)?  ->  dX (B,n)? dW (n,m)? db (m)?
/// `input_activation` names the activation that X is the output of, if dX is to be the gradient of
/// what went into it: then the layer below runs without activation, and without a pass over dY.
/// cost     2 B n m flop for dX and for dW; with an activation one more pass over dY
/// numerics as the forward; db in blocks of kKC rows, eight chains each; with `accumulate` dW and db
///          are added to, dX is always stored; in bf16 dZ, X and W are rounded for the products, db
///          is not
struct AffineBackward {
  static constexpr const char* name = "affine_backward";
  View dY, X, W, Y, dX, dW, db;
  Activation activation = Activation::none;
  bool accumulate = false;
  Activation input_activation = Activation::none;
  Precision precision = Precision::full;
  double flops() const {
    return 2.0 * X.shape[0] * X.shape[1] * W.shape[1] * (int(bool(dX)) + int(bool(dW)));
  }
  Scratch scratch() const {
    return {activation == Activation::none ? 0 : dY.bytes(), gemm_thread_bytes()};
  }
  void validate() const {
    check_precision(name, precision, X.dtype);
    if (activation != Activation::none && !Y)
      fail_value(
          "affine_backward: Y must be the output of the forward pass when there is an activation, "
          "got nothing");
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "B m");
    v.in("X", op.X, "B n");
    v.in("W", op.W, "n m");
    v.opt("Y", op.Y, "B m");
    v.opt_out("dX", op.dX, "B n");
    v.opt_sum("dW", op.dW, "n m", op.accumulate);
    v.opt_sum("db", op.db, "m", op.accumulate);
    v.attr("activation", op.activation);
    v.attr("accumulate", op.accumulate);
    v.attr("input_activation", op.input_activation);
    v.attr("precision", op.precision);
  }
};

}  // namespace fastdl
