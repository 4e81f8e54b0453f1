// adam: one pass over the arena, 4 reads and 3 writes in place (one more of each with amsgrad, one
// more of each with ema); bound by
// bandwidth once the arena leaves the caches, by the divider (one root, one division) inside them.
// An element's bits do not depend on where chunks or segments begin.
#include "ops/adam/adam.h"

#include "cpu/segments.h"

namespace fastdl::FASTDL_ISA {
namespace {

enum class Decay { none, l2, decoupled };

/// The scalars of a step, from double; `rate` and `inv_root` depend on the step count.
template <class T>
struct Rule {
  T beta1, new1, beta2, new2, eps, decay, factor, ema_weight;  // factor of g: ±clip
  T rate, inv_root;
  int64_t taken = -1;
  double lr, beta1_, beta2_;

  Rule(const double* hyper, const View& squares, bool decoupled)
      : beta1(T(hyper[1])),
        new1(T(1 - hyper[1])),
        beta2(T(hyper[2])),
        new2(T(1 - hyper[2])),
        eps(T(hyper[3])),
        decay(T(decoupled ? 1 - hyper[0] * hyper[4] : hyper[4])),
        factor(T((hyper[5] != 0 ? -1 : 1) * clip_factor(hyper[6], squares))),
        ema_weight(T(1 - hyper[7])),
        lr(hyper[0]),
        beta1_(hyper[1]),
        beta2_(hyper[2]) {}

  /// Bias corrections after `steps` steps were taken.
  FASTDL_INLINE void at(int64_t steps) {
    if (steps == taken) return;
    taken = steps;
    const double t = double(steps) + 1;
    rate = T(lr / (1 - __builtin_pow(beta1_, t)));
    inv_root = T(1 / __builtin_sqrt(1 - __builtin_pow(beta2_, t)));
  }
};

template <class T>
struct Arrays {
  T *theta, *m1, *m2, *m2_max, *ema;
  const T* g;
};

template <Decay kDecay, bool kMax, class T>
FASTDL_INLINE void step(const Rule<T>& rule, const Arrays<T>& a, int64_t first, int64_t last) {
  const Vec<T> beta1 = broadcast(rule.beta1), new1 = broadcast(rule.new1),
               beta2 = broadcast(rule.beta2), new2 = broadcast(rule.new2),
               eps = broadcast(rule.eps), decay = broadcast(rule.decay),
               factor = broadcast(rule.factor), rate = broadcast(-rule.rate),
               inv_root = broadcast(rule.inv_root), ema_weight = broadcast(rule.ema_weight);
  for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
    Vec<T> theta = load(a.theta + i, n), g = factor * load(a.g + i, n);
    if (kDecay == Decay::l2) g = fma(decay, theta, g);
    if (kDecay == Decay::decoupled) theta = theta * decay;
    const Vec<T> m1 = without_subnormals<T>(fma(beta1, load(a.m1 + i, n), new1 * g));
    Vec<T> m2 = without_subnormals<T>(fma(beta2, load(a.m2 + i, n), new2 * (g * g)));
    store(a.m1 + i, m1, n);
    store(a.m2 + i, m2, n);
    if (kMax) {
      const Vec<T> old = load(a.m2_max + i, n);
      m2 = select<T>((old > m2) | (old != old), old, m2);  // NaN in either stays
      store(a.m2_max + i, m2, n);
    }
    theta = fma(rate, m1 / fma(sqrt(m2), inv_root, eps), theta);
    store(a.theta + i, theta, n);
    if (a.ema) store(a.ema + i, averaged<T>(load(a.ema + i, n), theta, ema_weight), n);
  });
}

template <Decay kDecay, bool kMax, class T>
void adam(AdamStep op) {
  Rule<T> first_rule(op.hyper.as<double>(), op.squares, op.decoupled);
  const Arrays<T> arrays{op.theta.as<T>(),  op.m1.as<T>(),  op.m2.as<T>(),
                         op.m2_max.as<T>(), op.ema.as<T>(), op.g.as<T>()};
  if (op.ends.shape[0]) first_rule.at(op.steps.as<int64_t>()[0]);
  step_segments(op.ends, op.steps, (7 + 2 * kMax + 2 * bool(op.ema)) * sizeof(T),
                [&](int64_t first, int64_t last, int64_t taken) {
                  Rule<T> rule = first_rule;
                  rule.at(taken);
                  step<kDecay, kMax>(rule, arrays, first, last);
                });
}

template <class T>
void dispatch(const AdamStep& op) {
  const bool decays = op.hyper.as<double>()[4] != 0;
  const Decay decay = !decays ? Decay::none : op.decoupled ? Decay::decoupled : Decay::l2;
  if (decay == Decay::none)
    op.m2_max ? adam<Decay::none, true, T>(op) : adam<Decay::none, false, T>(op);
  else if (decay == Decay::l2)
    op.m2_max ? adam<Decay::l2, true, T>(op) : adam<Decay::l2, false, T>(op);
  else
    op.m2_max ? adam<Decay::decoupled, true, T>(op) : adam<Decay::decoupled, false, T>(op);
}

}  // namespace

void adam_step(const AdamStep& op, const Workspace&) {
  with_real(op.theta.dtype, [&](auto* t) { dispatch<std::remove_pointer_t<decltype(t)>>(op); });
}

}  // namespace fastdl::FASTDL_ISA
