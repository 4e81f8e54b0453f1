// cast: element-wise, one pass, 4 elements a thread; bound by bandwidth.
#include "cuda/pack.cuh"
#include "ops/cast/cast.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class From, class To>
struct Convert {
  const From* x;
  To* y;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    unroll<4>([&](int k) {
      if (k < n) y[i + k] = rounded<To>(Compute<To>(widened(x[i + k])));
    });
  }
};

}  // namespace

void cast(const Cast& op, const Workspace&) {
  with_stored(op.X.dtype, [&](auto* from) {
    with_stored(op.Y.dtype, [&](auto* to) {
      using From = std::remove_pointer_t<decltype(from)>;
      using To = std::remove_pointer_t<decltype(to)>;
      for_each_step<4>(op.X.size(), Convert<From, To>{op.X.as<From>(), op.Y.as<To>()});
    });
  });
}

}  // namespace fastdl::FASTDL_ISA
