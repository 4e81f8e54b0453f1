// mse_loss: see cpu/loss.h.
#include "ops/mse_loss/mse_loss.h"

#include "cpu/loss.h"

namespace fastdl::FASTDL_ISA {

void mse_loss_forward(const MseLossForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    difference_loss<T>(op, ws,
                       [](Vec<T> d) FASTDL_UNROLLED { return LossAndSlope<T>{d * d, d + d}; });
  });
}

}  // namespace fastdl::FASTDL_ISA
