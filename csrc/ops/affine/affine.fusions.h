#pragma once
#include "ops/affine/affine.h"
#include "ops/relu/relu.h"
#include "ops/tanh/tanh.h"

namespace fastdl {

/// act(X W + b): the epilogue applies the same function to the same sums.
inline bool absorb_activation(AffineForward& first, Activation activation, const View& Y) {
  if (first.activation != Activation::none) return false;
  first.activation = activation;
  first.Y.data = Y.data;
  return true;
}
inline bool absorb(AffineForward& first, const ReluForward& second) {
  return absorb_activation(first, Activation::relu, second.Y);
}
inline bool absorb(AffineForward& first, const TanhForward& second) {
  return absorb_activation(first, Activation::tanh, second.Y);
}

}  // namespace fastdl
