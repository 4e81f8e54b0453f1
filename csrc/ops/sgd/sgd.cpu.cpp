// sgd: one pass over the arena; bound by bandwidth.  What differs between variants is
// loop-invariant and hoisted by the compiler; an element's bits do not depend on where chunks or
// segments begin.
#include "ops/sgd/sgd.h"

#include "cpu/segments.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
struct Rule {
  T lr, momentum, kept, decay, factor, ema_weight;  // kept = 1 - dampening; factor of g: ±clip
  bool has_momentum, nesterov, has_decay;

  Rule(const double* hyper, const View& squares)
      : lr(T(hyper[0])),
        momentum(T(hyper[1])),
        kept(T(1 - hyper[2])),
        decay(T(hyper[3])),
        factor(T((hyper[5] != 0 ? -1 : 1) * clip_factor(hyper[6], squares))),
        ema_weight(T(1 - hyper[7])),
        has_momentum(hyper[1] != 0),
        nesterov(hyper[4] != 0),
        has_decay(hyper[3] != 0) {}
};

/// One stretch of parameters; `fresh`: nothing is in the momentum buffer yet.
template <class T>
FASTDL_INLINE void step(const Rule<T>& rule, bool fresh, T* theta, const T* g, T* buf, T* ema,
                        int64_t first, int64_t last) {
  const Vec<T> lr = broadcast(-rule.lr), momentum = broadcast(rule.momentum),
               kept = broadcast(rule.kept), decay = broadcast(rule.decay),
               factor = broadcast(rule.factor), ema_weight = broadcast(rule.ema_weight);
  for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
    const Vec<T> old = load(theta + i, n);
    Vec<T> move = factor * load(g + i, n);
    if (rule.has_decay) move = fma(decay, old, move);
    if (rule.has_momentum) {
      const Vec<T> b =
          without_subnormals<T>(fresh ? move : fma(momentum, load(buf + i, n), kept * move));
      store(buf + i, b, n);
      move = rule.nesterov ? fma(momentum, b, move) : b;
    }
    const Vec<T> now = fma(lr, move, old);
    store(theta + i, now, n);
    if (ema) store(ema + i, averaged<T>(load(ema + i, n), now, ema_weight), n);
  });
}

template <class T>
void sgd(SgdStep op) {
  const Rule<T> rule(op.hyper.as<double>(), op.squares);
  T *theta = op.theta.as<T>(), *buf = op.buf.as<T>(), *ema = op.ema.as<T>();
  const T* g = op.g.as<T>();
  const int64_t bytes = ((rule.has_momentum ? 5 : 3) + (ema ? 2 : 0)) * sizeof(T);
  step_segments(op.ends, op.steps, bytes, [&](int64_t first, int64_t last, int64_t taken) {
    step(rule, taken == 0, theta, g, buf, ema, first, last);
  });
}

}  // namespace

void sgd_step(const SgdStep& op, const Workspace&) {
  with_real(op.theta.dtype, [&](auto* t) { sgd<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
