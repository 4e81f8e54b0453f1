// scale_rows: one product per element, one pass, 16 bytes a thread; bound by bandwidth.
#include "cuda/pack.cuh"
#include "ops/scale_rows/scale_rows.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
struct ScaleAll {
  const T *x, *s;
  T* y;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const T factor = *s;
    store(y + i, map(load(x + i, n), [=](T v) { return v * factor; }), n);
  }
};

template <class T>
struct ScaleEach {
  const T *x, *s;
  T* y;
  int64_t C;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    Pack<T> p = load(x + i, n);
    int64_t row = i / C, column = i - row * C;
    unroll<kPack<T>>([&](int k) {
      if (k < n) p.at[k] *= s[row];
      if (++column == C) ++row, column = 0;
    });
    store(y + i, p, n);
  }
};

}  // namespace

void scale_rows(const ScaleRows& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const T *x = op.X.as<T>(), *s = op.s.as<T>();
    T* y = op.Y.as<T>();
    if (op.s.shape[0] == 1)
      for_each_pack<T>(op.X.size(), ScaleAll<T>{x, s, y});
    else
      for_each_pack<T>(op.X.size(), ScaleEach<T>{x, s, y, op.X.shape[1]});
  });
}

}  // namespace fastdl::FASTDL_ISA
