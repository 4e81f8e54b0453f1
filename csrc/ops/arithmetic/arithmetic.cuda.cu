// add, sub, mul: one pass, 16 bytes of the result a thread; bound by bandwidth.  A broadcast
// operand is read again by every row and comes from the caches.
#include "cuda/axes.cuh"
#include "ops/arithmetic/arithmetic.h"

namespace fastdl::FASTDL_ISA {
namespace {

struct Plus {
  template <class T>
  static FASTDL_DEVICE T of(T a, T b) {
    return a + b;
  }
};
struct Minus {
  template <class T>
  static FASTDL_DEVICE T of(T a, T b) {
    return a - b;
  }
};
struct Times {
  template <class T>
  static FASTDL_DEVICE T of(T a, T b) {
    return a * b;
  }
};

template <class T, class F>
struct Combine {
  Axes<2> axes;
  const T *x, *z;
  T* y;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    Pack<T> packs[2];
    load_packs(axes, {x, z}, i, n, packs);
    store(y + i, map(packs[0], packs[1], [](T a, T b) { return F::of(a, b); }), n);
  }
};

template <class F, class Op>
void combine(const Op& op) {
  with_real(op.Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const Axes<2> axes = merged_axes<2>({&op.X, &op.other});
    const Combine<T, F> body{axes, op.X.template as<T>(), op.other.template as<T>(),
                             op.Y.template as<T>()};
    for_each_pack<T>(op.Y.size(), body);
  });
}

}  // namespace

void add_forward(const AddForward& op, const Workspace&) { combine<Plus>(op); }

void sub_forward(const SubForward& op, const Workspace&) { combine<Minus>(op); }

void mul_forward(const MulForward& op, const Workspace&) { combine<Times>(op); }

}  // namespace fastdl::FASTDL_ISA
