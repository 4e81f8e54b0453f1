// scale_rows: one product per element, one pass; bound by bandwidth.
#include "ops/scale_rows/scale_rows.h"

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
FASTDL_INLINE void scale(const T* x, T factor, T* y, int64_t size) {
  const Vec<T> s = broadcast(factor);
  for_each_vector<T>(0, size, [=](int64_t j, int64_t n) { store(y + j, load(x + j, n) * s, n); });
}

template <class T>
void scale_all(const ScaleRows& op) {
  const T *x = op.X.as<T>(), factor = *op.s.as<T>();
  T* y = op.Y.as<T>();
  parallel_range(op.X.size(), 2 * sizeof(T), [=](int64_t first, int64_t last) {
    scale(x + first, factor, y + first, last - first);
  });
}

template <class T>
void scale_each(const ScaleRows& op) {
  const int64_t B = op.X.shape[0], C = op.X.shape[1];
  const int64_t rows = max_of(1, kFlatChunk / max_of(1, C));
  const T *x = op.X.as<T>(), *s = op.s.as<T>();
  T* y = op.Y.as<T>();
  parallel_for(ceil_div(B, rows), 2 * B * C * sizeof(T), [=](int64_t chunk, int) {
    const int64_t last = min_of(B, (chunk + 1) * rows);
    for (int64_t i = chunk * rows; i < last; ++i) scale(x + i * C, s[i], y + i * C, C);
  });
}

}  // namespace

void scale_rows(const ScaleRows& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    op.s.shape[0] == 1 ? scale_all<T>(op) : scale_each<T>(op);
  });
}

}  // namespace fastdl::FASTDL_ISA
