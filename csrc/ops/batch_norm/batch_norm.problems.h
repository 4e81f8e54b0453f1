#pragma once
// What the forward and the backward pass of batch_norm differ in: the sums, what follows from them
// for a channel, and the element-wise map.
#include "cpu/columns.h"
#include "ops/batch_norm/batch_norm.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kChannelTile = 64;  // channels that one chunk of step 2 works on

template <class T>
FASTDL_INLINE T* take(char*& p, int64_t n) {
  T* taken = reinterpret_cast<T*>(p);
  p += aligned_bytes(n * int64_t(sizeof(T)));
  return taken;
}

/// What lies in the scratch memory of a call.
template <class T>
struct Buffers {
  double *partial, *sum_a, *sum_b;           // of blocks or pieces; of channels
  T* channel[BatchNormPlan::kCoefficients];  // coefficients of each channel ...
  T* column[BatchNormPlan::kCoefficients];   // ... and of each column

  FASTDL_INLINE Buffers(const BatchNormPlan& plan, char* p) {
    partial = take<double>(p, plan.partials());
    sum_a = take<double>(p, 2 * plan.C);
    sum_b = sum_a + plan.C;
    for (T*& c : channel) c = take<T>(p, plan.C);
    for (int i = 0; i < BatchNormPlan::kCoefficients; ++i)
      column[i] = plan.expands() ? take<T>(p, plan.columns) : channel[i];
  }
};

/// The factor of X - mean.  The backward pass computes it from the rounded rstd, so the forward pass
/// does too: an activation must see the same sign.
template <class T>
FASTDL_INLINE T scale_of(const T* gamma, int64_t c, T rstd) {
  return gamma ? gamma[c] * rstd : rstd;
}

template <class T>
struct Forward {
  using Real = T;
  static constexpr int kCoefficients = 3, kArrays = 1;
  enum { mean_, scale_, shift_ };

  const BatchNormForward& op;
  const T* x;
  T* out;
  double M, factor;  // values per channel; weight of this batch in the running statistics
  T lowest;          // of Y

  explicit Forward(const BatchNormForward& f)
      : op(f),
        x(f.X.as<T>()),
        out(f.Y.as<T>()),
        M(double(f.X.shape[0] * f.X.shape[2])),
        factor(f.momentum),
        lowest(f.activation == Activation::relu ? T(0) : T(-__builtin_inf())) {
    if (f.momentum < 0 && f.num_batches) factor = 1 / (double(*f.num_batches.as<int64_t>()) + 1);
  }

  bool sums() const { return op.training; }
  bool writes() const { return true; }
  Moments<T> by_column(const Buffers<T>&) const { return {x}; }
  Moments<T> of_channel(int64_t) const { return {x}; }
  int prepare(T* const*, int64_t, int64_t) const { return 0; }

  /// Statistics, running statistics and coefficients of the channels [c, c + n), n <= kChannelTile.
  void finish(int64_t c, int64_t n, const double* sum, const double* dev, T* const* k) const {
    double mean[kChannelTile], var[kChannelTile], rstd[kChannelTile];
    T *running_mean = op.running_mean.as<T>(), *running_var = op.running_var.as<T>();
    if (op.training) {
      for (int64_t i = 0; i < n; ++i) mean[i] = sum[c + i] / M, var[i] = dev[c + i] / M;
      if (running_mean) move(running_mean + c, mean, 1, n);
      if (running_var) move(running_var + c, var, M / (M - 1), n);
    } else {
      for (int64_t i = 0; i < n; ++i) mean[i] = running_mean[c + i], var[i] = running_var[c + i];
    }
    for (int64_t i = 0; i < n; ++i) rstd[i] = 1 / __builtin_sqrt(var[i] + op.eps);
    if (op.mean) put(op.mean.as<T>() + c, mean, n);
    if (op.rstd) put(op.rstd.as<T>() + c, rstd, n);
    put(k[mean_] + c, mean, n);
    const T *gamma = op.gamma.as<T>(), *beta = op.beta.as<T>();
    for (int64_t i = 0; i < n; ++i) k[scale_][c + i] = scale_of(gamma, c + i, T(rstd[i]));
    for (int64_t i = 0; i < n; ++i) k[shift_][c + i] = beta ? beta[c + i] : T(0);
  }

  /// (x - mean) first: with the mean folded into the shift its digits would be lost.
  template <class At>
  FASTDL_INLINE Vec<T> value(int64_t i, int64_t lanes, const At& k) const {
    return max(broadcast(lowest), fma(load(x + i, lanes) - k(mean_), k(scale_), k(shift_)));
  }

 private:
  FASTDL_INLINE static void put(T* to, const double* from, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = T(from[i]);
  }
  FASTDL_INLINE void move(T* running, const double* batch, double scale, int64_t n) const {
    for (int64_t i = 0; i < n; ++i)
      running[i] = T((1 - factor) * running[i] + factor * (scale * batch[i]));
  }
};

template <class T>
struct Backward {
  using Real = T;
  static constexpr int kCoefficients = 5, kArrays = 2;
  enum { mean_, scale_, shift_, sum_, slope_ };

  const BatchNormBackward& op;
  const T *dy, *x;
  T* out;
  double M;
  bool relu, training;

  explicit Backward(const BatchNormBackward& b)
      : op(b),
        dy(b.dY.as<T>()),
        x(b.X.as<T>()),
        out(b.dX.as<T>()),
        M(double(b.X.shape[0] * b.X.shape[2])),
        relu(b.activation == Activation::relu),
        training(b.training) {}

  bool sums() const { return op.dgamma || op.dbeta || (op.dX && training); }
  bool writes() const { return bool(op.dX); }
  GradientSums<T, PerColumn<T>> by_column(const Buffers<T>& m) const {
    return {dy, x, {m.column[mean_]}, {m.column[scale_]}, {m.column[shift_]}, relu};
  }
  GradientSums<T, ForAll<T>> of_channel(int64_t c) const {
    return {dy, x, {op.mean.as<T>()[c]}, {scale(c)}, {shift(c)}, relu};
  }
  /// What step 1 needs of the channels [c, c + n): the first coefficients; returns how many.
  int prepare(T* const* k, int64_t c, int64_t n) const {
    for (int64_t i = c; i < c + n; ++i) {
      k[mean_][i] = op.mean.as<T>()[i];
      k[scale_][i] = scale(i), k[shift_][i] = shift(i);
    }
    return relu ? 3 : 1;
  }

  /// Parameter gradients and coefficients of the channels [c, c + n).
  void finish(int64_t c, int64_t n, const double* sum, const double* slope, T* const* k) const {
    const T* rstd = op.rstd.as<T>();
    T *dgamma = op.dgamma.as<T>(), *dbeta = op.dbeta.as<T>();
    const double inv_m = 1 / M;
    prepare(k, c, n);
    if (!sums()) return;
    for (int64_t i = c; i < c + n; ++i) {
      k[sum_][i] = T(sum[i] * inv_m);
      k[slope_][i] = T(slope[i] * rstd[i] * rstd[i] * inv_m);
    }
    if (dgamma)
      for (int64_t i = c; i < c + n; ++i)
        dgamma[i] = T(slope[i] * rstd[i] + (op.accumulate ? double(dgamma[i]) : 0));
    if (dbeta)
      for (int64_t i = c; i < c + n; ++i)
        dbeta[i] = T(sum[i] + (op.accumulate ? double(dbeta[i]) : 0));
  }

  template <class At>
  FASTDL_INLINE Vec<T> value(int64_t i, int64_t lanes, const At& k) const {
    Vec<T> g = load(dy + i, lanes);
    if (relu) g = through_relu<T>(g, load(x + i, lanes) - k(mean_), k(scale_), k(shift_));
    if (!training) return g * k(scale_);
    return k(scale_) * fma(k(mean_) - load(x + i, lanes), k(slope_), g - k(sum_));
  }

 private:
  FASTDL_INLINE T scale(int64_t c) const {
    return scale_of(op.gamma.as<T>(), c, op.rstd.as<T>()[c]);
  }
  FASTDL_INLINE T shift(int64_t c) const { return op.beta ? op.beta.as<T>()[c] : T(0); }
};

}  // namespace
}  // namespace fastdl::FASTDL_ISA
