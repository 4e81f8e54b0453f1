#include "core/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/backend.h"
#include "core/memory_plan.h"

namespace fastdl {
namespace {

/// The best rate of several short runs: a ceiling is what the machine can do.
template <class F>
double best_rate(F&& work, int repeat) {
  using clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < repeat; ++i) {
    const auto start = clock::now();
    const double done = work();
    best = std::max(best, done / std::chrono::duration<double>(clock::now() - start).count());
  }
  return best;
}

double copy_rate(int64_t bytes) {
  const int64_t n = bytes / 8;
  AlignedMemory memory;
  float* from = reinterpret_cast<float*>(memory.reserve(bytes));
  std::memset(from, 0, size_t(bytes));
  const int passes = int(std::max<int64_t>(1, (int64_t{2} << 20) / bytes));
  const auto work = [&] {
    for (int i = 0; i < passes; ++i) backend().copy_floats(from, from + n, n);
    return double(passes) * double(bytes);
  };
  return best_rate(work, passes > 1 ? 20 : 3);
}

}  // namespace

Ceilings measure_ceilings() {
  if (!backend().fma_in_registers)
    throw std::runtime_error(std::string("ceilings: backend '") + backend().name +
                             "' has none; choose another by use_backend()");
  const auto flops = [](DType t) {
    return best_rate([t] { return backend().fma_in_registers(t, 20000); }, 10);
  };
  Ceilings c{flops(DType::f32), flops(DType::f64), {{24 << 10, 0}, {512 << 10, 0}, {64 << 20, 0}}};
  for (auto& copy : c.copies) copy.rate = copy_rate(copy.bytes);
  return c;
}

}  // namespace fastdl
