#pragma once
// A flat arena of P elements made of S segments: segment s ends where ends[s] says (exclusive) and
// has its own step count.  The optimizers' kernels share this.
#include "core/op.h"

namespace fastdl {

/// Throws unless `ends` ascends to P and no step count is negative.  On a device only fastdl.optim
/// makes these arrays, and nothing is checked.
FASTDL_INLINE void check_segments(const char* op, const View& ends, const View& steps, int64_t P) {
  if (!ends.on_host()) return;
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

/// Visits parameters, gradients and, where those are bf16, the float32 weights beside: then the
/// parameters are written and not read.
template <class Op, class V>
void visit_weights(Op& op, V& v) {
  if (op.master)
    v.out("theta", op.theta, "P", Kind::stored);
  else
    v.inout("theta", op.theta, "P", Kind::stored);
  v.in("g", op.g, "P", Kind::stored);
  v.opt_inout("master", op.master, "P");
}

/// Throws unless float32 weights are given where theta, in bf16, is what they are rounded to.
FASTDL_INLINE void check_master(const char* op, const View& theta, const View& master) {
  if (bool(master) != (theta.dtype == DType::bf16))
    fail_value("%s: master must be given for a theta in bfloat16 and for no other, got %s", op,
               master ? "it" : "nothing");
}

/// Throws unless what the options at hyper[first] ask for is there: the sum of squares to clip by a
/// norm, the average to keep.  Not checked on a device.
FASTDL_INLINE void check_clip_and_ema(const char* op, const View& hyper, int first,
                                      const View& squares, const View& ema) {
  if (!hyper.on_host()) return;
  const double* h = hyper.as<double>() + first;
  if (h[0] != 0 && !squares)
    fail_value("%s: squares must be given when clip_norm is not 0, got nothing", op);
  if (h[1] != 0 && !ema)
    fail_value("%s: ema must be given when ema_decay is not 0, got nothing", op);
}

}  // namespace fastdl
