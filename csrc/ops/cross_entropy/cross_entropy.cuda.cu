// cross_entropy: softmax, loss and gradient of a row by one team of threads; bound by bandwidth.
// With z = x - max:
//   pass 1  max                                (reads X)
//   pass 2  e = exp z, Z = sum e               (registers)
//   pass 3  dX = e (S g / Z) - w q g           (registers, writes dX)
// where S = sum w q and g = 1 / N.  1 read, 1 write, 1 exp per element.
// - A team is a warp (8 rows a block) or a block of up to 1024 threads, so that a thread has 4
//   packs of the row, or 8 in the longest rows that fit: 32 K classes of f32, 16 K of f64.
// - Longer rows are read three times and e computed twice; they wait for clusters.
// - N, a sum of label weights, has a launch of its own before, the total one after: no atomics.
// Numerics: how a row is cut among threads depends on C alone; exp and log are cuda/math.cuh.
#include "cuda/math.cuh"
#include "cuda/rows.cuh"
#include "ops/cross_entropy/cross_entropy.h"

namespace fastdl::FASTDL_ISA {
namespace {

enum class Target { label, smoothed, soft };
constexpr int kRowsOfWarps = kLaneTeamThreads / kWarpSize;

/// What all rows of a call share.
template <class T>
struct Call {
  const T *X, *P, *w;
  T *dX, *loss, *count;  // count: N, where the labels decide it; else null
  const void* t;
  bool t_is_32;
  int64_t B, C, ignore_index;
  T certain, uniform;  // 1 - s, s / C
  T n;                 // N where `count` is null

  FASTDL_DEVICE int64_t label(int64_t i) const {
    return t_is_32 ? static_cast<const int32_t*>(t)[i] : static_cast<const int64_t*>(t)[i];
  }
  FASTDL_DEVICE T weight_of_class(int64_t c) const { return w ? w[c] : T(1); }
  FASTDL_DEVICE T weight_of_row(int64_t i) const {
    const int64_t c = label(i);
    return c == ignore_index ? T(0) : weight_of_class(c);
  }
};

/// The sums over a row: of e, w q z and w q, the latter two without the label's own share.
template <class T>
struct Sums {
  T e = 0, qz = 0, q = 0;
};

/// a b, where an a of 0 silences even an infinite b.
template <class T>
FASTDL_DEVICE T silenced(T a, T b) {
  return a == T(0) ? a : a * b;
}

/// w q of class j, without the label's own share.
template <Target K, class T>
FASTDL_DEVICE T weighted_target(const Call<T>& c, const T* p, int64_t j) {
  T q = c.uniform;
  if (K == Target::soft) q = fma(p[j], c.certain, q);
  return q * c.weight_of_class(j);
}

/// Pass 2 for one pack, which becomes e where it is held.
template <Target K, class T>
FASTDL_DEVICE Sums<T> add_exp(const Call<T>& c, const T* p, T hi, int64_t j, int64_t n,
                              Pack<T>& pack) {
  Sums<T> s;
  unroll<kPack<T>>([&](int k) {
    const T z = pack.at[k] - hi;
    pack.at[k] = k < n ? exp_of_negative(z) : T(0);
    s.e += pack.at[k];
    if (K == Target::label || k >= n) return;
    const T q = weighted_target<K>(c, p, j + k);
    s.qz += silenced(q, z), s.q += q;
  });
  return s;
}

template <Target K, int kPacks, bool kWarp, class T>
__global__ void __launch_bounds__(kWarp ? kWarpSize * kRowsOfWarps : kMaxBlockThreads)
    rows_kernel(const __grid_constant__ Call<T> c) {
  FASTDL_SHARED(T, shared, kWarpSize);
  const Team<kWarp> team;
  const int64_t i = team.row();
  if (i >= c.B) return;  // warps without a row; no team is divided
  const T *x = c.X + i * c.C, *p = K == Target::soft ? c.P + i * c.C : nullptr;
  T* dx = c.dX ? c.dX + i * c.C : nullptr;
  RowPart<T, kPacks, kWarp> part;

  const int64_t t = K == Target::soft ? -1 : c.label(i);
  if (K != Target::soft && t == c.ignore_index) {
    if (team.rank() == 0) c.loss[i] = 0;
    if (dx)
      part.visit(team, x, c.C, true, -infinity<T>(),
                 [&](int64_t j, int64_t n, Pack<T>&) { store(dx + j, Pack<T>{}, n); });
    return;
  }
  T hi = -infinity<T>();
  part.visit(team, x, c.C, true, -infinity<T>(), [&](int64_t, int64_t, const Pack<T>& v) {
    unroll<kPack<T>>([&](int k) { hi = Max{}(v.at[k], hi); });
  });
  hi = team.join(hi, shared, Max{});

  Sums<T> sums;
  part.visit(team, x, c.C, false, -infinity<T>(), [&](int64_t j, int64_t n, Pack<T>& v) {
    const Sums<T> s = add_exp<K>(c, p, hi, j, n, v);
    sums.e += s.e, sums.qz += s.qz, sums.q += s.q;
  });
  sums.e = team.join(sums.e, shared, Add{});
  if (K != Target::label) {
    sums.qz = team.join(sums.qz, shared, Add{});
    sums.q = team.join(sums.q, shared, Add{});
  }

  const T own = K == Target::soft ? T(0) : c.certain * c.weight_of_class(t);
  const T weight = own + sums.q, g = 1 / (c.count ? *c.count : c.n);
  if (team.rank() == 0) {
    const T linear = sums.qz + (own != T(0) ? own * (x[t] - hi) : T(0));
    c.loss[i] = fma(weight, log_of(sums.e), -linear);
  }
  if (!dx) return;
  const T factor = weight * g / sums.e;
  part.visit(team, x, c.C, false, -infinity<T>(), [&](int64_t j, int64_t n, Pack<T>& v) {
    Pack<T> slope;
    unroll<kPack<T>>([&](int k) {
      const T e = kPacks ? v.at[k] : exp_of_negative(v.at[k] - hi);
      const T q = K == Target::label || k >= n ? T(0) : weighted_target<K>(c, p, j + k);
      slope.at[k] = fma(-(j + k == t ? q + own : q), g, e * factor);
    });
    store(dx + j, slope, n);
  });
}

/// N = the sum of w_t over the rows that count.
template <class T>
__global__ void __launch_bounds__(kMaxBlockThreads)
    count_kernel(const __grid_constant__ Call<T> c) {
  FASTDL_SHARED(T, shared, kWarpSize);
  T sum = 0;
  for (int64_t i = threadIdx.x; i < c.B; i += blockDim.x) sum += c.weight_of_row(i);
  sum = join_block(sum, shared, Add{});
  if (threadIdx.x == 0) *c.count = sum;
}

template <Target K, class T>
void all_rows(const Call<T>& c) {
  const int threads = threads_for_row<T>(c.C);
  const int64_t packs = ceil_div(c.C, int64_t(threads) * kPack<T>);
  if (threads == kWarpSize)
    launch(&rows_kernel<K, 4, true, T>, ceil_div(c.B, kRowsOfWarps), kWarpSize * kRowsOfWarps, c);
  else if (packs <= 4)
    launch(&rows_kernel<K, 4, false, T>, c.B, threads, c);
  else if (packs <= 8)
    launch(&rows_kernel<K, 8, false, T>, c.B, threads, c);
  else
    launch(&rows_kernel<K, 0, false, T>, c.B, threads, c);
}

template <class T>
void forward(const CrossEntropyForward& op, const Workspace& ws) {
  Call<T> c{};
  c.X = op.X.as<T>(), c.P = op.P.as<T>(), c.w = op.w.as<T>(), c.dX = op.dX.as<T>();
  c.B = op.X.shape[0], c.C = op.X.shape[1], c.ignore_index = op.ignore_index;
  c.t = op.t.data, c.t_is_32 = op.t.dtype == DType::i32;
  c.loss = op.loss ? op.loss.as<T>() : reinterpret_cast<T*>(ws.shared);
  c.certain = T(1 - op.label_smoothing), c.uniform = T(op.label_smoothing / double(c.C));
  c.n = op.reduction == Reduction::mean ? T(c.B) : T(1);
  if (op.t && op.reduction == Reduction::mean && c.B) {
    c.count = reinterpret_cast<T*>(ws.shared + aligned_bytes(c.B * int64_t(sizeof(T))));
    launch(&count_kernel<T>, 1, threads_for_row<T>(c.B), c);
  }
  if (c.B && op.P)
    all_rows<Target::soft>(c);
  else if (c.B && op.label_smoothing > 0)
    all_rows<Target::smoothed>(c);
  else if (c.B)
    all_rows<Target::label>(c);
  if (op.total) total_of<T>(c.loss, c.B, c.count, c.n, op.total.as<T>());
}

}  // namespace

void cross_entropy_forward(const CrossEntropyForward& op, const Workspace& ws) {
  with_real(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
