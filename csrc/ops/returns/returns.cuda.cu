// discounted_returns, gae: a thread for each environment goes back through time, so that a warp reads
// whole lines.  What a step adds to the chain is loaded 8 steps ahead; the chain itself is an fma a
// step.  1 read of each input, 1 write of each output; few environments are bound by latency, some
// 100 ns a step.  The bits of the CPU.
#include "cuda/pack.cuh"
#include "ops/returns/returns.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kAhead = 8;

/// Calls load(t, s) for 8 steps t at a time, s = 0..7 saying where to keep them, and then step(t, s).
template <class Load, class Step>
FASTDL_DEVICE void back_through_time(int64_t steps, Load&& load, Step&& step) {
  for (int64_t last = steps - 1; last >= 0; last -= kAhead) {
    unroll<kAhead>([&](int s) {
      if (last >= s) load(last - s, s);
    });
    unroll<kAhead>([&](int s) {
      if (last >= s) step(last - s, s);
    });
  }
}

template <class T>
struct Discount {
  const T *rewards, *last_value;
  const uint8_t* dones;
  T* returns;
  int64_t steps, N;
  T gamma;

  FASTDL_DEVICE void operator()(int64_t j, int64_t) const {
    T r[kAhead], G = last_value ? last_value[j] : T(0);
    bool done[kAhead];
    back_through_time(
        steps,
        [&](int64_t t, int s) { r[s] = rewards[t * N + j], done[s] = dones[t * N + j] != 0; },
        [&](int64_t t, int s) { returns[t * N + j] = G = done[s] ? r[s] : fma(gamma, G, r[s]); });
  }
};

template <class T>
struct Estimate {
  const T *rewards, *values, *last_values;
  const uint8_t* dones;
  T *advantages, *returns;
  int64_t steps, N;
  T gamma, decay;

  FASTDL_DEVICE void operator()(int64_t j, int64_t) const {
    T r[kAhead], V[kAhead], next_V = last_values[j], A = 0;
    bool done[kAhead];
    back_through_time(
        steps,
        [&](int64_t t, int s) {
          const int64_t i = t * N + j;
          r[s] = rewards[i], V[s] = values[i], done[s] = dones[i] != 0;
        },
        [&](int64_t t, int s) {
          A = done[s] ? r[s] - V[s] : fma(decay, A, fma(gamma, next_V, r[s]) - V[s]);
          next_V = V[s];
          advantages[t * N + j] = A, returns[t * N + j] = A + V[s];
        });
  }
};

}  // namespace

void discounted_returns(const DiscountedReturns& op, const Workspace&) {
  with_real(op.rewards.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const int64_t steps = op.rewards.shape[0], N = op.rewards.shape[1];
    for_each_step<1>(N,
                     Discount<T>{op.rewards.as<T>(), op.last_value.as<T>(), op.dones.as<uint8_t>(),
                                 op.returns.as<T>(), steps, N, T(op.gamma)});
  });
}

void gae(const Gae& op, const Workspace&) {
  with_real(op.rewards.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const int64_t steps = op.rewards.shape[0], N = op.rewards.shape[1];
    for_each_step<1>(
        N, Estimate<T>{op.rewards.as<T>(), op.values.as<T>(), op.last_values.as<T>(),
                       op.dones.as<uint8_t>(), op.advantages.as<T>(), op.returns.as<T>(), steps, N,
                       T(op.gamma), T(op.gamma * op.lam)});
  });
}

}  // namespace fastdl::FASTDL_ISA
