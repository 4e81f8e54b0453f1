#pragma once
// How the optimizers' kernels walk over an arena of segments (core/segments.h): a block takes
// kArenaChunk elements, stretch by stretch of segments that have taken the same number of steps.
#include "cuda/pack.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

/// 16 packs of f32 for each of 256 threads: what a stretch computes once is paid by many elements.
constexpr int64_t kArenaChunk = 16 * 1024;
constexpr int kArenaThreads = 256;

/// The first of the segments whose end is above `element`.
FASTDL_DEVICE int64_t segment_of(const int64_t* ends, int64_t segments, int64_t element) {
  int64_t low = 0, high = segments - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ends[middle] > element)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

/// Calls body.stretch(first, last, steps) by all threads of the block alike.
template <class Body>
__global__ void __launch_bounds__(kArenaThreads)
    arena_kernel(const int64_t* ends, const int64_t* steps, int64_t segments, int64_t size,
                 const __grid_constant__ Body body) {
  int64_t first = int64_t(blockIdx.x) * kArenaChunk;
  const int64_t last = min_of(size, first + kArenaChunk);
  int64_t s = segment_of(ends, segments, first);
  while (first < last) {
    const int64_t taken = steps[s];
    int64_t stop = ends[s++];
    while (stop < last && (steps[s] == taken || ends[s] == stop)) stop = ends[s++];
    stop = min_of(stop, last);
    body.stretch(first, stop, taken);
    first = stop;
  }
}

__global__ void __launch_bounds__(kArenaThreads) count_steps(int64_t* steps, int64_t segments) {
  const int64_t s = int64_t(blockIdx.x) * kArenaThreads + threadIdx.x;
  if (s < segments) ++steps[s];
}

/// Runs the body over the arena; then, when no block reads the counts any more, counts the step.
template <class Body>
void step_segments(const View& ends, const View& steps, int64_t size, const Body& body) {
  const int64_t segments = ends.shape[0];
  if (segments == 0) return;
  int64_t* count = steps.as<int64_t>();
  if (size)
    launch(&arena_kernel<Body>, ceil_div(size, kArenaChunk), kArenaThreads, ends.as<int64_t>(),
           count, segments, size, body);
  launch(&count_steps, ceil_div(segments, kArenaThreads), kArenaThreads, count, segments);
}

/// Calls f(i, n) for the thread's packs of [first, last).
template <class T, class F>
FASTDL_DEVICE void for_packs_of_stretch(int64_t first, int64_t last, F&& f) {
  int64_t i = first + int64_t(threadIdx.x) * kPack<T>;
  for (; i < last; i += kArenaThreads * kPack<T>) f(i, last - i);
}

/// Parameters: theta, or where that is bf16 the float32 weights whose rounding it is.
template <class S>
struct Weights {
  S* theta;
  Compute<S>* master;

  FASTDL_DEVICE Pack<Compute<S>> at(int64_t i, int64_t n) const {
    if constexpr (kAsStored<S>)
      return load(theta + i, n);
    else
      return load(master + i, n);
  }
  FASTDL_DEVICE void put(int64_t i, const Pack<Compute<S>>& p, int64_t n) const {
    if constexpr (!kAsStored<S>) store(master + i, p, n);
    store(theta + i, p, n);
  }
};

/// What gradients are multiplied by to clip their norm: see cpu/segments.h.
FASTDL_DEVICE double clip_factor(double c, const double* squares) {
  if (!squares || c == 0) return 1;
  const double factor = c / (sqrt(*squares) + 1e-6);
  return factor > 1 ? 1 : factor;
}

/// x, but 0 where x is subnormal: see cpu/simd.h.
template <class T>
FASTDL_DEVICE T without_subnormals(T x) {
  constexpr T kSmallest = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  return (x < T(0) ? -x : x) < kSmallest ? T(0) : x;
}

/// The moving average with theta at `weight`; NaN marks one that begins here: see cpu/segments.h.
template <class T>
FASTDL_DEVICE T averaged(T ema, T theta, T weight) {
  return ema == ema ? without_subnormals(fma(weight, theta - ema, ema)) : theta;
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
