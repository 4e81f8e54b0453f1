// smooth_l1_loss: see cuda/loss.cuh.
#include "cuda/loss.cuh"
#include "ops/smooth_l1_loss/smooth_l1_loss.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// NaN takes the linear branch, and stays in loss and slope.
template <class T>
struct SmoothL1 {
  T beta;
  FASTDL_DEVICE LossAndSlope<T> operator()(T d) const {
    const T size = d < T(0) ? -d : d, ratio = d / beta;
    const T sign = d > T(0) ? T(1) : d < T(0) ? T(-1) : d;
    if (size < beta) return {T(0.5) * d * ratio, ratio};
    return {size - T(0.5) * beta, sign};
  }
};

}  // namespace

void smooth_l1_loss_forward(const SmoothL1LossForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    difference_loss<T>(op, ws, SmoothL1<T>{T(op.beta)});
  });
}

}  // namespace fastdl::FASTDL_ISA
