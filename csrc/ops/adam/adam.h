#pragma once
#include "core/op.h"
#include "core/segments.h"

namespace fastdl {

/// g' = ±g, plus wd theta unless `decoupled` (then theta *= 1 - lr wd first: AdamW)
/// m1 = beta1 m1 + (1 - beta1) g';   m2 = beta2 m2 + (1 - beta2) g'^2
/// theta -= lr / (1 - beta1^t)  m1 / (sqrt(v) / sqrt(1 - beta2^t) + eps),   t = step count from 1
/// v = m2, or with m2_max (amsgrad) v = m2_max = max(m2_max, m2)
///      theta (P)  g (P)  m1 (P)  m2 (P)  m2_max (P)?  steps (S)  ends (S)  hyper (6)
/// The arena's P elements are S segments; segment s ends at ends[s] and has taken steps[s] steps.
/// hyper    lr, beta1, beta2, eps, weight_decay, maximize (0 or 1): an array, so that a recorded
///          step follows a changed learning rate
/// cost     one pass: 28 bytes for each f32 parameter, 36 with amsgrad; a square root, a division
/// numerics 1 - beta and the bias corrections in double; root and division correctly rounded
///          moments that would be subnormal are stored as 0
/// source   Kingma & Ba, "Adam", 2015, alg. 1; Loshchilov & Hutter, "Decoupled weight decay
///          regularization", 2019, alg. 2; Reddi et al., "On the convergence of Adam and beyond",
///          2018, in the form of torch.optim.Adam and AdamW
struct AdamStep {
  static constexpr const char* name = "adam_step";
  View theta, g, m1, m2, m2_max, steps, ends, hyper;
  bool decoupled = false;
  double flops() const { return 14.0 * theta.size(); }
  void validate() const { check_segments(name, ends, steps, theta.shape[0]); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.inout("theta", op.theta, "P");
    v.in("g", op.g, "P");
    v.inout("m1", op.m1, "P");
    v.inout("m2", op.m2, "P");
    v.opt_inout("m2_max", op.m2_max, "P");
    v.inout("steps", op.steps, "S", Kind::i64);
    v.in("ends", op.ends, "S", Kind::i64);
    v.in("hyper", op.hyper, "6", Kind::f64);
    v.attr("decoupled", op.decoupled);
  }
};

}  // namespace fastdl
