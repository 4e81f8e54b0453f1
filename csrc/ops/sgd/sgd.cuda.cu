// sgd: one pass over the arena, 12 bytes an f32 or bf16 parameter, 20 with momentum, 8 more with
// ema; bound by bandwidth.
// The hyper-parameters are read from memory by every thread, so a replayed step follows them.
#include "cuda/segments.cuh"
#include "ops/sgd/sgd.h"

namespace fastdl::FASTDL_ISA {
namespace {

template <class S>
struct Sgd {
  using T = Compute<S>;
  Weights<S> weights;
  const S* g;
  T *buf, *ema;  // the last may be null, as may squares
  const double *hyper, *squares;

  /// What hyper says: see ops/sgd/sgd.h.
  struct Rule {
    T lr, momentum, kept, decay, factor, ema_weight;  // kept = 1 - dampening; factor of g: ±clip
    bool nesterov;
    FASTDL_DEVICE Rule(const double* h, const double* squares)
        : lr(T(h[0])),
          momentum(T(h[1])),
          kept(T(1 - h[2])),
          decay(T(h[3])),
          factor(T((h[5] != 0 ? -1 : 1) * clip_factor(h[6], squares))),
          ema_weight(T(1 - h[7])),
          nesterov(h[4] != 0) {}
  };

  FASTDL_DEVICE void stretch(int64_t first, int64_t last, int64_t taken) const {
    const Rule r(hyper, squares);
    const bool moves = hyper[1] != 0, decays = hyper[3] != 0;
    for_packs_of_stretch<S>(first, last, [&](int64_t i, int64_t n) {
      Pack<T> p = weights.at(i, n), b{};
      const Pack<T> slope = load(g + i, n);
      if (moves && taken > 0) b = load(buf + i, n);
      unroll<kPack<T>>([&](int k) {
        T move = r.factor * slope.at[k];
        if (decays) move = fma(r.decay, p.at[k], move);
        if (moves) {
          b.at[k] = without_subnormals(taken ? fma(r.momentum, b.at[k], r.kept * move) : move);
          move = r.nesterov ? fma(r.momentum, b.at[k], move) : b.at[k];
        }
        p.at[k] = fma(-r.lr, move, p.at[k]);
      });
      if (moves) store(buf + i, b, n);
      weights.put(i, p, n);
      if (ema) {
        const auto average = [&](T e, T now) { return averaged(e, now, r.ema_weight); };
        store(ema + i, map(load(ema + i, n), p, average), n);
      }
    });
  }
};

}  // namespace

void sgd_step(const SgdStep& op, const Workspace&) {
  with_stored(op.theta.dtype, [&](auto* s) {
    using S = std::remove_pointer_t<decltype(s)>;
    using T = Compute<S>;
    const Sgd<S> body{{op.theta.as<S>(), op.master.as<T>()},
                      op.g.as<S>(),
                      op.buf.as<T>(),
                      op.ema.as<T>(),
                      op.hyper.as<double>(),
                      op.squares.as<double>()};
    step_segments(op.ends, op.steps, op.theta.shape[0], body);
  });
}

}  // namespace fastdl::FASTDL_ISA
