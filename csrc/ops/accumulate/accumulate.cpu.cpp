// accumulate: element-wise, one pass; bound by bandwidth.
#include "ops/accumulate/accumulate.h"

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
void add(const Accumulate& op) {
  const T* x = op.X.as<T>();
  T* y = op.Y.as<T>();
  parallel_range(op.X.size(), 3 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
      store(y + i, load(y + i, n) + load(x + i, n), n);
    });
  });
}

}  // namespace

void accumulate(const Accumulate& op, const Workspace&) {
  with_real(op.X.dtype, [&](auto* t) { add<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
