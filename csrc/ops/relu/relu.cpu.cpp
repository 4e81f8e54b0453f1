// relu: element-wise, one pass; bound by bandwidth.
#include "ops/relu/relu.h"

#include "cpu/activation.h"

namespace fastdl::FASTDL_ISA {

void relu_forward(const ReluForward& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    activate<Relu>(op.X.as<T>(), op.Y.as<T>(), op.X.size());
  });
}

void relu_backward(const ReluBackward& op, const Workspace&) {
  with_real(op.Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    through_activation<Relu>(op.dY.as<T>(), op.Y.as<T>(), op.dX.as<T>(), op.Y.size());
  });
}

}  // namespace fastdl::FASTDL_ISA
