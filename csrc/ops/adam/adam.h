#pragma once
#include "core/op.h"
#include "core/segments.h"

namespace fastdl {

/// g' = ±clip g, plus wd theta unless `decoupled` (then theta *= 1 - lr wd first: AdamW)
/// m1 = beta1 m1 + (1 - beta1) g';   m2 = beta2 m2 + (1 - beta2) g'^2
/// theta -= lr / (1 - beta1^t)  m1 / (sqrt(v) / sqrt(1 - beta2^t) + eps),   t = step count from 1
/// v = m2, or with m2_max (amsgrad) v = m2_max = max(m2_max, m2)
/// clip = min(1, clip_norm / (sqrt(squares) + 1e-6)), or 1 for clip_norm = 0
/// ema += (1 - ema_decay) (theta - ema), where ema is NaN it becomes theta
///      theta (P)  g (P)  master (P)?  m1 (P)  m2 (P)  m2_max (P)?  ema (P)?  steps (S)  ends (S)
///      hyper (8)  squares ()?
/// The arena's P elements are S segments; segment s ends at ends[s] and has taken steps[s] steps.
/// master   where theta and g are bf16: the f32 weights that the step is for; theta becomes what
///          they round to
/// squares  the sum of squares of all gradients whose norm is clipped
/// hyper    lr, beta1, beta2, eps, weight_decay, maximize (0 or 1), clip_norm, ema_decay: an array,
///          so that a recorded step follows a changed learning rate
/// cost     one pass: 28 bytes for each f32 or bf16 parameter, 8 more with amsgrad, 8 with ema; a
///          square root, a division
/// numerics 1 - beta, clip and the bias corrections in double; root and division correctly rounded
///          moments that would be subnormal are stored as 0
/// source   Kingma & Ba, "Adam", 2015, alg. 1; Loshchilov & Hutter, "Decoupled weight decay
///          regularization", 2019, alg. 2; Reddi et al., "On the convergence of Adam and beyond",
///          2018, in the form of torch.optim.Adam and AdamW
struct AdamStep {
  static constexpr const char* name = "adam_step";
  View theta, g, master, m1, m2, m2_max, ema, steps, ends, hyper, squares;
  bool decoupled = false;
  double flops() const { return 14.0 * theta.size(); }
  void validate() const {
    check_master(name, theta, master);
    check_segments(name, ends, steps, theta.shape[0]);
    check_clip_and_ema(name, hyper, 6, squares, ema);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    visit_weights(op, v);
    v.inout("m1", op.m1, "P");
    v.inout("m2", op.m2, "P");
    v.opt_inout("m2_max", op.m2_max, "P");
    v.opt_inout("ema", op.ema, "P");
    v.inout("steps", op.steps, "S", Kind::i64);
    v.in("ends", op.ends, "S", Kind::i64);
    v.in("hyper", op.hyper, "8", Kind::f64);
    v.opt("squares", op.squares, "", Kind::f64);
    v.attr("decoupled", op.decoupled);
  }
};

}  // namespace fastdl
