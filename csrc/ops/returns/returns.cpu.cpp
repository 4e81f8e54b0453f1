// discounted_returns, gae: one pass back through time, vectors over the environments.
// A panel of environments goes through all steps; what step t needs of t + 1 is read from the row
// just written, which is in L1.  One environment alone is a chain of fmas: latency bound, ~20 ns a
// step.
#include "ops/returns/returns.h"

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kPanel = 1024;  // environments; 4 KiB of f32 per row

/// Runs body(first, last) over panels of the N environments; `arrays` is how many (T,N) are moved.
template <class F>
FASTDL_INLINE void for_each_panel(const View& rewards, int64_t arrays, F&& body) {
  const int64_t N = rewards.shape[1];
  parallel_for(ceil_div(N, kPanel), rewards.bytes() * arrays,
               [&](int64_t chunk, int) { body(chunk * kPanel, min_of(N, (chunk + 1) * kPanel)); });
}

/// Lanes whose flag is set.
template <class T>
FASTDL_INLINE Vec<IntOf<T>> set_lanes(const uint8_t* flag, int64_t n) {
  IntOf<T> lane[kLanes<T>] = {};
  for (int64_t l = 0; l < n; ++l) lane[l] = flag[l] ? -1 : 0;
  Vec<IntOf<T>> v;
  __builtin_memcpy(&v, lane, sizeof v);
  return v;
}

template <class T>
void discount(const DiscountedReturns& op) {
  const int64_t steps = op.rewards.shape[0], N = op.rewards.shape[1];
  const T *r = op.rewards.as<T>(), *last_value = op.last_value.as<T>();
  const uint8_t* done = op.dones.as<uint8_t>();
  T* G = op.returns.as<T>();
  const Vec<T> gamma = broadcast(T(op.gamma));
  for_each_panel(op.rewards, 3, [=](int64_t first, int64_t last) {
    const T* next = last_value;
    for (int64_t t = steps - 1; t >= 0; --t) {
      const int64_t row = t * N;
      for_each_vector<T>(first, last, [=](int64_t j, int64_t n) {
        const Vec<T> reward = load(r + row + j, n), after = next ? load(next + j, n) : Vec<T>{};
        const Vec<T> g = fma(gamma, after, reward);
        store(G + row + j, select<T>(set_lanes<T>(done + row + j, n), reward, g), n);
      });
      next = G + row;
    }
  });
}

template <class T>
void estimate(const Gae& op) {
  const int64_t steps = op.rewards.shape[0], N = op.rewards.shape[1];
  const T *r = op.rewards.as<T>(), *values = op.values.as<T>(),
          *last_values = op.last_values.as<T>();
  const uint8_t* done = op.dones.as<uint8_t>();
  T *A = op.advantages.as<T>(), *G = op.returns.as<T>();
  const Vec<T> gamma = broadcast(T(op.gamma)), decay = broadcast(T(op.gamma * op.lam));
  for_each_panel(op.rewards, 5, [=](int64_t first, int64_t last) {
    const T *next_value = last_values, *next_advantage = nullptr;
    for (int64_t t = steps - 1; t >= 0; --t) {
      const int64_t row = t * N;
      for_each_vector<T>(first, last, [=](int64_t j, int64_t n) {
        const Vec<T> V = load(values + row + j, n), reward = load(r + row + j, n);
        const Vec<T> after = next_advantage ? load(next_advantage + j, n) : Vec<T>{};
        const Vec<T> on = fma(decay, after, fma(gamma, load(next_value + j, n), reward) - V);
        const Vec<T> a = select<T>(set_lanes<T>(done + row + j, n), reward - V, on);
        store(A + row + j, a, n);
        store(G + row + j, a + V, n);
      });
      next_value = values + row, next_advantage = A + row;
    }
  });
}

}  // namespace

void discounted_returns(const DiscountedReturns& op, const Workspace&) {
  with_real(op.rewards.dtype, [&](auto* t) { discount<std::remove_pointer_t<decltype(t)>>(op); });
}

void gae(const Gae& op, const Workspace&) {
  with_real(op.rewards.dtype, [&](auto* t) { estimate<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
