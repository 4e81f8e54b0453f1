#pragma once
#include "core/op.h"
#include "core/segments.h"

namespace fastdl {

/// g' = ±clip g + wd theta;  buf = momentum buf + (1 - dampening) g', at the first step buf = g'
/// theta -= lr (g' | buf with momentum | g' + momentum buf with Nesterov's)
/// clip = min(1, clip_norm / (sqrt(squares) + 1e-6)), or 1 for clip_norm = 0
/// ema += (1 - ema_decay) (theta - ema), where ema is NaN it becomes theta
///      theta (P)  g (P)  master (P)?  buf (P)?  ema (P)?  steps (S)  ends (S)  hyper (8)
///      squares ()?
/// The arena's P elements are S segments; segment s ends at ends[s] and has taken steps[s] steps.
/// master   where theta and g are bf16: the f32 weights that the step is for; theta becomes what
///          they round to
/// squares  the sum of squares of all gradients whose norm is clipped
/// hyper    lr, momentum, dampening, weight_decay, nesterov (0 or 1), maximize (0 or 1), clip_norm,
///          ema_decay: an array, so that a recorded step follows a changed learning rate
/// cost     one pass: 12 bytes for each f32 or bf16 parameter, 20 with momentum; 8 more with ema
/// numerics 1 - dampening and clip in double; without weight decay theta does not enter g'
///          moments that would be subnormal are stored as 0
/// source   Sutskever et al., "On the importance of initialization and momentum in deep learning",
///          2013, in the form of torch.optim.SGD
struct SgdStep {
  static constexpr const char* name = "sgd_step";
  View theta, g, master, buf, ema, steps, ends, hyper, squares;
  double flops() const { return 6.0 * theta.size(); }
  void validate() const {
    check_master(name, theta, master);
    check_segments(name, ends, steps, theta.shape[0]);
    if (hyper.on_host() && hyper.as<double>()[1] != 0 && !buf)
      fail_value("sgd_step: buf must be given when momentum is not 0, got nothing");
    check_clip_and_ema(name, hyper, 6, squares, ema);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    visit_weights(op, v);
    v.opt_inout("buf", op.buf, "P");
    v.opt_inout("ema", op.ema, "P");
    v.inout("steps", op.steps, "S", Kind::i64);
    v.in("ends", op.ends, "S", Kind::i64);
    v.in("hyper", op.hyper, "8", Kind::f64);
    v.opt("squares", op.squares, "", Kind::f64);
  }
};

}  // namespace fastdl
