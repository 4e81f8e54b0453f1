// affine: one GEMM forward, two backward; bound by the fma units, except for few rows (bandwidth of
// W).  Backward:
//   1. with an activation, dZ = dY act'(Y) into scratch, since the products read it many times
//   2. dX = dZ W^T    3. dW = X^T dZ    4. db = column sums of dZ, rows ascending
#include "ops/affine/affine.h"

#include "cpu/activation.h"
#include "cpu/gemm.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
void forward(const AffineForward& op, const Workspace& ws) {
  const int64_t B = op.X.shape[0], n = op.X.shape[1], m = op.W.shape[1];
  const Epilogue<T> e{op.b.as<T>(), op.activation == Activation::relu, false};
  gemm<T>({B, m, n, {op.X.as<T>(), n, 1}, {op.W.as<T>(), m, 1}, op.Y.as<T>(), m, e}, ws);
}

/// db_j = sum_i dZ_ij (+ db_j); each column is one chain over the rows.
template <class T>
void column_sums(const T* dz, int64_t B, int64_t m, T* db, bool accumulate) {
  constexpr int64_t kColumns = 64;
  parallel_for(ceil_div(m, kColumns), B * m * sizeof(T), [=](int64_t chunk, int) {
    const int64_t first = chunk * kColumns;
    for_each_vector<T>(first, min_of(m, first + kColumns), [=](int64_t j, int64_t n) {
      Vec<T> sum{};
      for (int64_t i = 0; i < B; ++i) sum = sum + load(dz + i * m + j, n);
      store(db + j, accumulate ? load(db + j, n) + sum : sum, n);
    });
  });
}

template <class T>
void backward(const AffineBackward& op, const Workspace& ws) {
  const int64_t B = op.X.shape[0], n = op.X.shape[1], m = op.W.shape[1];
  const T* dz = op.dY.as<T>();
  if (op.activation == Activation::relu) {
    T* masked = reinterpret_cast<T*>(ws.shared);
    through_relu(dz, op.Y.as<T>(), masked, B * m);
    dz = masked;
  }
  if (op.dX) gemm<T>({B, n, m, {dz, m, 1}, {op.W.as<T>(), 1, m}, op.dX.as<T>(), n, {}}, ws);
  const Epilogue<T> add{nullptr, false, op.accumulate};
  if (op.dW) gemm<T>({n, m, B, {op.X.as<T>(), 1, n}, {dz, m, 1}, op.dW.as<T>(), m, add}, ws);
  if (op.db) column_sums(dz, B, m, op.db.as<T>(), op.accumulate);
}

}  // namespace

void affine_forward(const AffineForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

void affine_backward(const AffineBackward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { backward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
