// cast: element-wise, one pass; bound by bandwidth.
#include "ops/cast/cast.h"

#include "core/bfloat.h"
#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class From, class To>
FASTDL_INLINE To converted(From x) {
  if constexpr (std::is_same_v<From, Bf16>)
    return converted<float, To>(widened(x));
  else if constexpr (std::is_same_v<To, Bf16>)
    return to_bf16(float(x));
  else
    return To(x);
}

template <class F>
FASTDL_INLINE void with_float(DType dtype, F&& f) {
  dtype == DType::bf16 ? f(static_cast<Bf16*>(nullptr)) : with_real(dtype, f);
}

template <class From, class To>
void cast_all(const From* x, To* y, int64_t n) {
  parallel_range(n, sizeof(From) + sizeof(To), [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = converted<From, To>(x[i]);
  });
}

}  // namespace

void cast(const Cast& op, const Workspace&) {
  with_float(op.X.dtype, [&](auto* from) {
    with_float(op.Y.dtype, [&](auto* to) {
      using From = std::remove_pointer_t<decltype(from)>;
      using To = std::remove_pointer_t<decltype(to)>;
      cast_all(op.X.as<From>(), op.Y.as<To>(), op.X.size());
    });
  });
}

}  // namespace fastdl::FASTDL_ISA
