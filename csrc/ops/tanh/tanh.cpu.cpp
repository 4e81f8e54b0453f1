// tanh: element-wise, one pass of about 25 instructions for a vector; bound by bandwidth where the
// array is not in the cache.
#include "ops/tanh/tanh.h"

#include "cpu/activation.h"

namespace fastdl::FASTDL_ISA {

void tanh_forward(const TanhForward& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    activate<Tanh>(op.X.as<T>(), op.Y.as<T>(), op.X.size());
  });
}

void tanh_backward(const TanhBackward& op, const Workspace&) {
  with_real(op.Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    through_activation<Tanh>(op.dY.as<T>(), op.Y.as<T>(), op.dX.as<T>(), op.Y.size());
  });
}

}  // namespace fastdl::FASTDL_ISA
