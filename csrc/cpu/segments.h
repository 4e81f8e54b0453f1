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

}  // namespace
}  // namespace fastdl::FASTDL_ISA
