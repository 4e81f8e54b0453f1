#pragma once
// What the forward and the backward pass of batch_norm differ in: the sums, what follows from them
// for a channel, and the element-wise map.
#include "cuda/reduce.cuh"
#include "ops/batch_norm/batch_norm.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Of n values: sum and squared deviations (forward), or two plain sums (backward).
struct Sums {
  double n, a, b;
};
FASTDL_DEVICE Sums of_partner(const Sums& s, int bits) {
  return {of_partner(s.n, bits), of_partner(s.a, bits), of_partner(s.b, bits)};
}

/// Sums over the values that one thread meets; forward those of x - shift.
template <class T>
struct Running {
  double n = 0, a = 0, b = 0;
  T shift = 0;
};

/// What the output needs to know of a channel.
template <class T>
struct Coefficients {
  T mean, scale, shift, sum, slope;
};

/// The factor of X - mean, from the rounded rstd as in the backward pass: an activation must see
/// the same sign.
template <class T>
FASTDL_DEVICE T scale_of(const T* gamma, int64_t c, T rstd) {
  return gamma ? gamma[c] * rstd : rstd;
}

/// What the sums of one channel need to know.
template <class T>
struct Channel {
  T mean, scale, shift;
};

template <class S>
struct Forward {
  using T = Compute<S>;
  const S* x;
  const T *gamma, *beta;
  S* y;
  T *running_mean, *running_var, *mean, *rstd;
  const int64_t* num_batches;
  double M, eps, momentum;
  bool training, relu;

  static constexpr int kArrays = 1;
  FASTDL_DEVICE Channel<T> channel(int64_t) const { return {}; }
  /// Of the first n values of a pack: within it T is wide enough.
  FASTDL_DEVICE void add(Running<T>& r, const Pack<T>& x, const Pack<T>&, int64_t n,
                         const Channel<T>&) const {
    if (r.n == 0 && x.at[0] - x.at[0] == T(0)) r.shift = x.at[0];  // if finite
    T part = 0, squares = 0;
    unroll<kPack<T>>([&](int k) {
      const T d = k < n ? x.at[k] - r.shift : T(0);
      part += d, squares = fma(d, d, squares);
    });
    r.n += double(min_of<int64_t>(n, kPack<T>)), r.a += double(part), r.b += double(squares);
  }
  static FASTDL_DEVICE Sums done(const Running<T>& r) {
    if (r.n == 0) return {};
    const double squares = r.b - r.a * r.a / r.n;
    return {r.n, r.n * double(r.shift) + r.a, squares < 0 ? 0 : squares};  // NaN stays
  }
  FASTDL_DEVICE Sums operator()(const Sums& p, const Sums& q) const {
    if (p.n == 0 || q.n == 0) return p.n == 0 ? q : p;
    const double n = p.n + q.n, e = q.a - p.a;
    if (p.n == q.n) return {n, p.a + q.a, p.b + q.b + e * e / n};  // as below, in one division
    const double d = q.a / q.n - p.a / p.n;
    return {n, p.a + q.a, p.b + q.b + d * d * p.n * (q.n / n)};
  }

  FASTDL_DEVICE T moved(T running, double batch) const {
    const bool cumulative = momentum < 0 && num_batches;
    const double f = cumulative ? 1 / (double(*num_batches) + 1) : momentum;
    return T((1 - f) * running + f * batch);
  }
  /// What follows from the sums; the one thread that `writes` leaves the statistics in memory.
  FASTDL_DEVICE Coefficients<T> finish(int64_t c, const Sums& sums, bool writes) const {
    double center = sums.a / M, var = sums.b / M;
    if (training && writes) {
      if (running_mean) running_mean[c] = moved(running_mean[c], center);
      if (running_var) running_var[c] = moved(running_var[c], M / (M - 1) * var);
    } else if (!training) {
      center = running_mean[c], var = running_var[c];
    }
    const double inverse = 1 / sqrt(var + eps);
    if (mean && writes) mean[c] = T(center);
    if (rstd && writes) rstd[c] = T(inverse);
    return {T(center), scale_of(gamma, c, T(inverse)), beta ? beta[c] : T(0), T(0), T(0)};
  }
  /// (x - mean) first: with the mean folded into the shift its digits would be lost.
  FASTDL_DEVICE T value(T x, T, const Coefficients<T>& k) const {
    const T z = fma(x - k.mean, k.scale, k.shift);
    return relu && z < T(0) ? T(0) : z;
  }
};

template <class S>
struct Backward {
  using T = Compute<S>;
  const S *x, *dy;
  const T *gamma, *beta, *mean, *rstd;
  S* y;
  T *dgamma, *dbeta;
  double M;
  bool training, relu, accumulate, sums;

  static constexpr int kArrays = 2;
  FASTDL_DEVICE Channel<T> channel(int64_t c) const {
    return {mean[c], scale_of(gamma, c, rstd[c]), beta ? beta[c] : T(0)};
  }
  /// dY act'(Z), with the forward's Z.
  FASTDL_DEVICE T through(T dy, T x, T center, T scale, T shift) const {
    return relu && fma(x - center, scale, shift) <= T(0) ? T(0) : dy;
  }
  FASTDL_DEVICE void add(Running<T>& r, const Pack<T>& x, const Pack<T>& dy, int64_t n,
                         const Channel<T>& c) const {
    T part = 0, product = 0;
    unroll<kPack<T>>([&](int k) {
      if (k >= n) return;
      const T g = through(dy.at[k], x.at[k], c.mean, c.scale, c.shift);
      part += g, product = fma(g, x.at[k] - c.mean, product);
    });
    r.a += double(part), r.b += double(product);
  }
  static FASTDL_DEVICE Sums done(const Running<T>& r) { return {0, r.a, r.b}; }
  FASTDL_DEVICE Sums operator()(const Sums& p, const Sums& q) const {
    return {0, p.a + q.a, p.b + q.b};
  }

  /// What follows from the sums; the one thread that `writes` leaves the gradients in memory.
  FASTDL_DEVICE Coefficients<T> finish(int64_t c, const Sums& s, bool writes) const {
    const Channel<T> k = channel(c);
    if (!sums) return {k.mean, k.scale, k.shift, T(0), T(0)};
    const double r = rstd[c], inv_m = 1 / M;
    if (dgamma && writes) dgamma[c] = T(s.b * r + (accumulate ? double(dgamma[c]) : 0));
    if (dbeta && writes) dbeta[c] = T(s.a + (accumulate ? double(dbeta[c]) : 0));
    return {k.mean, k.scale, k.shift, T(s.a * inv_m), T(s.b * r * r * inv_m)};
  }
  FASTDL_DEVICE T value(T x, T dy, const Coefficients<T>& k) const {
    const T g = through(dy, x, k.mean, k.scale, k.shift);
    if (!training) return g * k.scale;
    return k.scale * fma(k.mean - x, k.slope, g - k.sum);
  }
};

/// The second array of the sums, where there is one.
template <class S>
FASTDL_DEVICE const S* slopes(const Forward<S>&) {
  return nullptr;
}
template <class S>
FASTDL_DEVICE const S* slopes(const Backward<S>& p) {
  return p.dy;
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
