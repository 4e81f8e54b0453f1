// What this instruction set can do at best, for core/ceilings.cpp to time.
#include "cpu/ceilings.h"

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Independent chains: two fma units with a latency of 4 cycles need 8; AVX2 has 16 registers.
constexpr int kChains = 12;

template <class T>
double chains(int64_t steps) {
  // x -> 0.999 x + 0.001 goes to 1: neither overflow nor subnormal numbers on the way.
  const Vec<T> a = broadcast(T(0.999)), b = broadcast(T(0.001));
  Vec<T> x[kChains];
  unroll<kChains>([&](auto i) FASTDL_UNROLLED { x[i] = b; });
  for (int64_t s = steps; s > 0; --s)
    unroll<kChains>([&](auto i) FASTDL_UNROLLED { x[i] = in_register(fma(x[i], a, b)); });
  volatile T sink;
  unroll<kChains>([&](auto i) FASTDL_UNROLLED { sink = x[i][0]; });
  return 2.0 * double(steps) * kChains * kLanes<T>;
}

}  // namespace

double fma_in_registers(DType dtype, int64_t steps) {
  return dtype == DType::f64 ? chains<double>(steps) : chains<float>(steps);
}

void copy_floats(const float* from, float* to, int64_t n) {
  for_each_vector<float>(0, n, [=](int64_t i, int64_t k) { store(to + i, load(from + i, k), k); });
}

}  // namespace fastdl::FASTDL_ISA
