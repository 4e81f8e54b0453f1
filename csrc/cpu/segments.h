#pragma once
// How the optimizers' kernels walk over an arena of segments (core/segments.h).
#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Calls body(first, last, steps) for each stretch of [first, last) whose segments have taken the
/// same number of steps: neighbours that march together are one loop.
template <class F>
FASTDL_INLINE void for_each_stretch(const int64_t* ends, const int64_t* steps, int64_t first,
                                    int64_t last, F&& body) {
  int64_t s = 0;
  while (ends[s] <= first) ++s;
  while (first < last) {
    const int64_t taken = steps[s];
    int64_t stop = ends[s++];
    while (stop < last && (steps[s] == taken || ends[s] == stop)) stop = ends[s++];
    stop = min_of(stop, last);
    body(first, stop, taken);
    first = stop;
  }
}

/// Runs body(first, last, steps) over the whole arena, then counts the step for every segment.
/// `bytes` is the traffic of one element.
template <class F>
FASTDL_INLINE void step_segments(const View& ends, View& steps, int64_t bytes, F&& body) {
  const int64_t S = ends.shape[0];
  const int64_t* end = ends.as<int64_t>();
  int64_t* step = steps.as<int64_t>();
  if (S == 0) return;
  parallel_range(end[S - 1], bytes, [&](int64_t first, int64_t last) {
    for_each_stretch(end, step, first, last, body);
  });
  for (int64_t s = 0; s < S; ++s) ++step[s];
}

/// What gradients are multiplied by to clip their norm, c: min(1, c / (norm + 1e-6)), as torch has
/// it; an infinite norm gives 0, NaN stays.  1 without a sum of squares or with c = 0.
FASTDL_INLINE double clip_factor(double c, const View& squares) {
  if (!squares || c == 0) return 1;
  const double factor = c / (__builtin_sqrt(*squares.as<double>()) + 1e-6);
  return factor > 1 ? 1 : factor;
}

/// The moving average with theta at `weight` = 1 - decay.  As a step towards theta it has theta as
/// its fixed point, which decay ema + (1 - decay) theta with rounded factors has not.  NaN marks an
/// average that has not begun: it begins at theta.
template <class T>
FASTDL_INLINE Vec<T> averaged(Vec<T> ema, Vec<T> theta, Vec<T> weight) {
  return select<T>(ema == ema, without_subnormals<T>(fma(weight, theta - ema, ema)), theta);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
