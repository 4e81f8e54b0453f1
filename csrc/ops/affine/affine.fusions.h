#pragma once
#include "ops/affine/affine.h"
#include "ops/relu/relu.h"

namespace fastdl {

/// relu(X W + b): the epilogue applies the same function to the same sums.
inline bool absorb(AffineForward& first, const ReluForward& second) {
  if (first.activation != Activation::none) return false;
  first.activation = Activation::relu;
  first.Y.data = second.Y.data;
  return true;
}

}  // namespace fastdl
