// scale_rows: one product per element, one pass, 16 bytes a thread; bound by bandwidth.
#include "cuda/pack.cuh"
#include "ops/scale_rows/scale_rows.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class S>
struct ScaleAll {
  using T = Compute<S>;
  const S* x;
  const T* s;
  S* y;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const T factor = *s;
    store(y + i, map(load(x + i, n), [=](T v) { return v * factor; }), n);
  }
};

template <class S>
struct ScaleEach {
  using T = Compute<S>;
  const S* x;
  const T* s;
  S* y;
  int64_t C;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    Pack<T> p = load(x + i, n);
    int64_t row = i / C, column = i - row * C;
    unroll<kPack<S>>([&](int k) {
      if (k < n) p.at[k] *= s[row];
      if (++column == C) ++row, column = 0;
    });
    store(y + i, p, n);
  }
};

}  // namespace

void scale_rows(const ScaleRows& op, const Workspace&) {
  with_stored(op.X.dtype, [&](auto* t) {
    using S = std::remove_pointer_t<decltype(t)>;
    const S* x = op.X.as<S>();
    const auto* s = op.s.as<Compute<S>>();
    S* y = op.Y.as<S>();
    if (op.s.shape[0] == 1)
      for_each_pack<S>(op.X.size(), ScaleAll<S>{x, s, y});
    else
      for_each_pack<S>(op.X.size(), ScaleEach<S>{x, s, y, op.X.shape[1]});
  });
}

}  // namespace fastdl::FASTDL_ISA
