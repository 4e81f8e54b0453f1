// relu: element-wise, one pass; bound by bandwidth.
#include "ops/relu/relu.h"

#include "cpu/activation.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
void forward(const ReluForward& op) {
  const T* x = op.X.as<T>();
  T* y = op.Y.as<T>();
  parallel_range(op.X.size(), 2 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last,
                       [=](int64_t i, int64_t n) { store(y + i, relu(load(x + i, n)), n); });
  });
}

}  // namespace

void relu_forward(const ReluForward& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op); });
}

void relu_backward(const ReluBackward& op, const Workspace&) {
  with_real(op.Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    through_relu(op.dY.as<T>(), op.Y.as<T>(), op.dX.as<T>(), op.Y.size());
  });
}

}  // namespace fastdl::FASTDL_ISA
