// adam: one pass over the arena, 4 reads and 3 writes in place (one more of each with amsgrad, and
// with ema), 28 bytes a parameter in f32, or in bf16 with f32 weights beside; bound by bandwidth.
// Hyper-parameters and step counts are read from memory, so a replayed step follows them.  The two
// powers of the bias corrections cost hundreds of instructions in double: one thread computes them
// for a stretch, of 16 K elements as a rule.
#include "cuda/segments.cuh"
#include "ops/adam/adam.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// The scalars of a step, from double: see ops/adam/adam.h.
template <class T>
struct Rule {
  T beta1, new1, beta2, new2, eps, decay, factor, ema_weight;  // factor of g: ±clip
  T rate, inv_root;                                            // of the step count

  FASTDL_DEVICE void set(const double* h, const double* squares, bool decoupled, int64_t taken) {
    const double t = double(taken) + 1;
    beta1 = T(h[1]), new1 = T(1 - h[1]);
    beta2 = T(h[2]), new2 = T(1 - h[2]);
    eps = T(h[3]);
    decay = T(decoupled ? 1 - h[0] * h[4] : h[4]);
    factor = T((h[5] != 0 ? -1 : 1) * clip_factor(h[6], squares));
    ema_weight = T(1 - h[7]);
    rate = T(h[0] / (1 - pow(h[1], t)));
    inv_root = T(1 / sqrt(1 - pow(h[2], t)));
  }
};

template <class S, bool kMax>
struct Adam {
  using T = Compute<S>;
  Weights<S> weights;
  const S* g;
  T *m1, *m2, *m2_max, *ema;  // ema may be null, as may squares
  const double *hyper, *squares;
  bool decoupled;

  FASTDL_DEVICE void stretch(int64_t first, int64_t last, int64_t taken) const {
    FASTDL_SHARED(Rule<T>, shared, 1);
    if (threadIdx.x == 0) shared->set(hyper, squares, decoupled, taken);
    __syncthreads();
    const Rule<T> rule = *shared;
    __syncthreads();  // the next stretch writes it
    const bool decays = hyper[4] != 0;
    for_packs_of_stretch<S>(first, last, [&](int64_t i, int64_t n) { step(rule, decays, i, n); });
  }

 private:
  FASTDL_DEVICE void step(const Rule<T>& r, bool decays, int64_t i, int64_t n) const {
    Pack<T> p = weights.at(i, n), first = load(m1 + i, n), second = load(m2 + i, n), top{};
    const Pack<T> slope = load(g + i, n);
    if (kMax) top = load(m2_max + i, n);
    unroll<kPack<T>>([&](int k) {
      T s = r.factor * slope.at[k];
      if (decays && !decoupled) s = fma(r.decay, p.at[k], s);
      if (decays && decoupled) p.at[k] *= r.decay;
      first.at[k] = without_subnormals(fma(r.beta1, first.at[k], r.new1 * s));
      T v = second.at[k] = without_subnormals(fma(r.beta2, second.at[k], r.new2 * (s * s)));
      if (kMax) {
        const T old = top.at[k];
        v = top.at[k] = old > v || old != old ? old : v;  // NaN in either stays
      }
      p.at[k] = fma(-r.rate, first.at[k] / fma(sqrt(v), r.inv_root, r.eps), p.at[k]);
    });
    weights.put(i, p, n), store(m1 + i, first, n), store(m2 + i, second, n);
    if (kMax) store(m2_max + i, top, n);
    if (ema) {
      const auto average = [&](T e, T now) { return averaged(e, now, r.ema_weight); };
      store(ema + i, map(load(ema + i, n), p, average), n);
    }
  }
};

template <class S, bool kMax>
void adam(const AdamStep& op) {
  using T = Compute<S>;
  const Adam<S, kMax> body{{op.theta.as<S>(), op.master.as<T>()},
                           op.g.as<S>(),
                           op.m1.as<T>(),
                           op.m2.as<T>(),
                           op.m2_max.as<T>(),
                           op.ema.as<T>(),
                           op.hyper.as<double>(),
                           op.squares.as<double>(),
                           op.decoupled};
  step_segments(op.ends, op.steps, op.theta.shape[0], body);
}

}  // namespace

void adam_step(const AdamStep& op, const Workspace&) {
  with_stored(op.theta.dtype, [&](auto* s) {
    using S = std::remove_pointer_t<decltype(s)>;
    op.m2_max ? adam<S, true>(op) : adam<S, false>(op);
  });
}

}  // namespace fastdl::FASTDL_ISA
