// affine: one GEMM forward, two backward; bound by the fma units, except for few rows (bandwidth of
// W).  Backward:
//   1. with an activation, dZ = dY act'(Y) into scratch, since the products read it many times; no
//      such pass where the layer above has done it in step 2, on tiles in registers or L1
//   2. dX = dZ W^T, times the derivative of the activation below
//   3. dW = X^T dZ, and db from the panels of dZ that it packs
#include "ops/affine/affine.h"

#include "cpu/gemm_bf16.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
FASTDL_INLINE void multiply(Precision precision, const Product<T>& p, const Workspace& ws) {
  if constexpr (sizeof(T) == 4)
    if (precision == Precision::bf16) return gemm_bf16(p, ws);
  gemm(p, ws);
}

template <class T>
void forward(const AffineForward& op, const Workspace& ws) {
  const int64_t B = op.X.shape[0], n = op.X.shape[1], m = op.W.shape[1];
  const Epilogue<T> e{op.b.as<T>(), op.activation};
  multiply<T>(op.precision,
              {B, m, n, {op.X.as<T>(), n, 1}, {op.W.as<T>(), m, 1}, op.Y.as<T>(), m, e}, ws);
}

/// db_j = sum_i dZ_ij (+ db_j) on its own, in the order in which the product for dW forms it.
template <class T>
void column_sums(const T* dz, int64_t B, int64_t m, T* db, bool accumulate) {
  constexpr int64_t kColumns = 64;
  parallel_for(ceil_div(m, kColumns), B * m * sizeof(T), [=](int64_t chunk, int) {
    const int64_t j = chunk * kColumns, cols = min_of(kColumns, m - j);
    int64_t i = 0;
    do {
      sum_columns(dz + i * m + j, m, min_of(kKC, B - i), cols, db + j, i > 0 || accumulate);
      i += kKC;
    } while (i < B);
  });
}

template <class T>
void backward(const AffineBackward& op, const Workspace& ws) {
  const int64_t B = op.X.shape[0], n = op.X.shape[1], m = op.W.shape[1];
  const T *dz = op.dY.as<T>(), *x = op.X.as<T>();
  T* const db = op.db.as<T>();
  with_activation(op.activation, [&](auto act) {
    T* through = reinterpret_cast<T*>(ws.shared);
    through_activation<decltype(act)>(dz, op.Y.as<T>(), through, B * m);
    dz = through;
  });
  const Epilogue<T> below{nullptr, op.input_activation, x}, add{.accumulate = op.accumulate};
  const Matrix<T> dZ{dz, m, 1}, W_t{op.W.as<T>(), 1, m}, X_t{x, 1, n};
  if (op.dX) multiply<T>(op.precision, {B, n, m, dZ, W_t, op.dX.as<T>(), n, below}, ws);
  const bool bf16 = op.precision == Precision::bf16, sums = op.dW && n > 0 && !bf16;
  T* const beside = sums ? db : nullptr;
  if (op.dW) multiply<T>(op.precision, {n, m, B, X_t, dZ, op.dW.as<T>(), m, add, beside}, ws);
  if (op.db && !sums) column_sums(dz, B, m, db, op.accumulate);
}

}  // namespace

void affine_forward(const AffineForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

void affine_backward(const AffineBackward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
