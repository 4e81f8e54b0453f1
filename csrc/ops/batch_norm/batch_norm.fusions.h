#pragma once
#include "ops/batch_norm/batch_norm.h"
#include "ops/relu/relu.h"

namespace fastdl {

/// relu(batch_norm(X)): applied to the same numbers as they are stored.
inline bool absorb(BatchNormForward& first, const ReluForward& second) {
  if (first.activation != Activation::none) return false;
  first.activation = Activation::relu;
  first.Y.data = second.Y.data;
  return true;
}

}  // namespace fastdl
