// slice: dX in packs, each element from its place in dY or 0; 1 read, 1 write, bound by bandwidth.  A
// thread divides once for its first element and counts on from there.
#include "cuda/pack.cuh"
#include "ops/slice/slice.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class S>
struct Backward {
  using T = Compute<S>;
  const S* dy;
  S* dx;
  int64_t R, K, M;
  int64_t low,
      gap;  // the rows taken are low, low + gap, ..., in the order of k or from the last on
  bool falls;

  FASTDL_DEVICE T at(int64_t n, int64_t k, int64_t m) const {
    return widened(dy[(n * K + (falls ? K - 1 - k : k)) * M + m]);
  }
  FASTDL_DEVICE void operator()(int64_t i, int64_t count) const {
    int64_t m = i % M, r = i / M % R, n = i / M / R;
    int64_t k = max_of<int64_t>(0, (r - low) / gap), rest = r - low - k * gap;
    Pack<T> p{};
    unroll<kPack<S>>([&](int e) {
      if (e < count && rest == 0 && k < K) p.at[e] = at(n, k, m);
      if (++m < M) return;
      m = 0, ++r, ++rest;
      if (rest == gap) ++k, rest = 0;
      if (r == R) r = 0, ++n, k = 0, rest = -low;
    });
    store(dx + i, p, count);
  }
};

}  // namespace

void slice_backward(const SliceBackward& op, const Workspace&) {
  const int64_t K = op.dY.shape[1], last = op.start + (K - 1) * op.step;
  const bool falls = K > 1 && op.step < 0;
  with_stored(op.dX.dtype, [&](auto* s) {
    using S = std::remove_pointer_t<decltype(s)>;
    for_each_pack<S>(op.dX.size(),
                     Backward<S>{op.dY.as<S>(), op.dX.as<S>(), op.dX.shape[1], K, op.dX.shape[2],
                                 falls ? last
                                 : K   ? op.start
                                       : 0,
                                 K > 1 ? (falls ? -op.step : op.step) : 1, falls});
  });
}

}  // namespace fastdl::FASTDL_ISA
