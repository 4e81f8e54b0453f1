// relu: element-wise, one pass; bound by bandwidth.
#include "ops/relu/relu.h"

#include "cpu/loop.h"

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

template <class T>
void backward(const ReluBackward& op) {
  const T *dy = op.dY.as<T>(), *y = op.Y.as<T>();
  T* dx = op.dX.as<T>();
  parallel_range(op.Y.size(), 3 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
      store(dx + i, select<T>(load(y + i, n) <= Vec<T>{}, Vec<T>{}, load(dy + i, n)), n);
    });
  });
}

}  // namespace

void relu_forward(const ReluForward& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op); });
}

void relu_backward(const ReluBackward& op, const Workspace&) {
  with_real(op.Y.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
