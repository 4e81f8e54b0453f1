// smooth_l1_loss: see cpu/loss.h.
#include "ops/smooth_l1_loss/smooth_l1_loss.h"

#include "cpu/loss.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// NaN takes the linear branch, and stays in loss and slope.
template <class T>
FASTDL_INLINE LossAndSlope<T> smooth_l1(Vec<T> d, Vec<T> beta) {
  const Vec<T> zero{}, one = broadcast(T(1)), half = broadcast(T(0.5));
  const Vec<T> size = max(d, -d), ratio = d / beta;
  const Vec<T> sign = select<T>(d > zero, one, select<T>(d < zero, -one, d));
  const auto inside = size < beta;
  return {select<T>(inside, half * d * ratio, size - half * beta), select<T>(inside, ratio, sign)};
}

}  // namespace

void smooth_l1_loss_forward(const SmoothL1LossForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const Vec<T> beta = broadcast(T(op.beta));
    difference_loss<T>(op, ws, [=](Vec<T> d) FASTDL_UNROLLED { return smooth_l1<T>(d, beta); });
  });
}

}  // namespace fastdl::FASTDL_ISA
