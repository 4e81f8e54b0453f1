// mse_loss: one pass, bound by bandwidth; each chunk leaves a partial sum, the caller adds them.
// Sums in 16 lanes and blocks (cpu/reduce.h) within a chunk and over the chunks.
#include "ops/mse_loss/mse_loss.h"

#include "cpu/reduce.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
struct Outputs {
  T *loss, *dx;
  Vec<T> slope;  // 2 / N
};

/// Up to a vector of elements; returns their losses, 0 from n on.
template <class T>
FASTDL_INLINE Vec<T> squares(const T* x, const T* t, const Outputs<T>& out, int64_t i, int64_t n) {
  const Vec<T> d = load(x + i, n) - load(t + i, n), loss = d * d;
  if (out.loss) store(out.loss + i, loss, n);
  if (out.dx) store(out.dx + i, d * out.slope, n);
  return loss;
}

template <class T>
T chunk_sum(const T* x, const T* t, const Outputs<T>& out, int64_t first, int64_t last) {
  T sum[1];
  row_sums<T, 1>(last - first, sum, [&](int64_t j, int64_t n, Wide<T>* acc) FASTDL_UNROLLED {
    acc[0] = acc[0] + wide<T>([&](auto k) FASTDL_UNROLLED {
               return squares(x, t, out, first + j + k * kLanes<T>, n - k * kLanes<T>);
             });
  });
  return sum[0];
}

template <class T>
void forward(const MseLossForward& op, const Workspace& ws) {
  constexpr int64_t kChunk = MseLossForward::kChunk;
  const int64_t size = op.X.size(), chunks = ceil_div(size, kChunk);
  const T N = op.reduction == Reduction::mean ? T(size) : T(1);
  const T *x = op.X.as<T>(), *t = op.T.as<T>();
  const Outputs<T> out{op.loss.as<T>(), op.dX.as<T>(), broadcast(2 / N)};
  T* partial = reinterpret_cast<T*>(ws.shared);
  parallel_for(chunks, size * 4 * sizeof(T), [&](int64_t chunk, int) {
    partial[chunk] = chunk_sum(x, t, out, chunk * kChunk, min_of(size, (chunk + 1) * kChunk));
  });
  if (op.total) *op.total.as<T>() = row_sum(partial, chunks) / N;
}

}  // namespace

void mse_loss_forward(const MseLossForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
