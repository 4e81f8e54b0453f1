#pragma once
// A flat arena of P elements made of S segments: segment s ends where ends[s] says (exclusive) and
// has its own step count.  The optimizers' kernels share this.
#include "core/op.h"

namespace fastdl {

/// Throws unless `ends` ascends to P and no step count is negative.
FASTDL_INLINE void check_segments(const char* op, const View& ends, const View& steps, int64_t P) {
  const int64_t S = ends.shape[0];
  const auto *end = ends.as<int64_t>(), *step = steps.as<int64_t>();
  for (int64_t s = 0; s < S; ++s) {
    if (end[s] < (s ? end[s - 1] : 0) || end[s] > P)
      fail_value("%s: ends must ascend to P = %lld, got ends[%lld] = %lld", op, (long long)P,
                 (long long)s, (long long)end[s]);
    if (step[s] < 0)
      fail_value("%s: steps must not be negative, got steps[%lld] = %lld", op, (long long)s,
                 (long long)step[s]);
  }
  if ((S ? end[S - 1] : 0) != P)
    fail_value("%s: ends must end with P = %lld, got %lld", op, (long long)P,
               (long long)(S ? end[S - 1] : 0));
}

}  // namespace fastdl
