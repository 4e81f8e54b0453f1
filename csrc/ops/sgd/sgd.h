#pragma once
#include "core/op.h"
#include "core/segments.h"

namespace fastdl {

/// g' = ±g + wd theta;  buf = momentum buf + (1 - dampening) g', at the first step buf = g'
/// theta -= lr (g' | buf with momentum | g' + momentum buf with Nesterov's)
///      theta (P)  g (P)  buf (P)?  steps (S)  ends (S)  hyper (6)
/// The arena's P elements are S segments; segment s ends at ends[s] and has taken steps[s] steps.
/// hyper    lr, momentum, dampening, weight_decay, nesterov (0 or 1), maximize (0 or 1): an array,
///          so that a recorded step follows a changed learning rate
/// cost     one pass: 12 bytes for each f32 parameter, 20 with momentum
/// numerics 1 - dampening in double; without weight decay theta does not enter g'
///          moments that would be subnormal are stored as 0
/// source   Sutskever et al., "On the importance of initialization and momentum in deep learning",
///          2013, in the form of torch.optim.SGD
struct SgdStep {
  static constexpr const char* name = "sgd_step";
  View theta, g, buf, steps, ends, hyper;
  double flops() const { return 6.0 * theta.size(); }
  void validate() const {
    check_segments(name, ends, steps, theta.shape[0]);
    if (hyper.as<double>()[1] != 0 && !buf)
      fail_value("sgd_step: buf must be given when momentum is not 0, got nothing");
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.inout("theta", op.theta, "P");
    v.in("g", op.g, "P");
    v.opt_inout("buf", op.buf, "P");
    v.inout("steps", op.steps, "S", Kind::i64);
    v.in("ends", op.ends, "S", Kind::i64);
    v.in("hyper", op.hyper, "6", Kind::f64);
  }
};

}  // namespace fastdl
