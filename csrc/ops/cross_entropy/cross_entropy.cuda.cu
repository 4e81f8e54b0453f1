// cross_entropy: softmax, loss and gradient of a row by one team of threads; bound by bandwidth.
// A team does one piece of a row, or the whole row.  With hi = the maximum of the piece, z = x - hi:
//   pass 1  hi                                 (reads X)
//   pass 2  e = exp z, sums of e, w q z, w q   (registers)
//   pass 3  dX = e F - w q g, F = S g / Z times what moves hi to the maximum of the row
// where Z, S are the sums of e and w q over the row and g = 1 / N.  1 read, 1 write, 1 exp per
// element.  A team is
// - a warp (8 rows a block), or a block: 512 threads hold 4 packs each, 256 hold 16, which makes
//   16 K classes of f32.  Two such blocks fit a multiprocessor: one computes while the other loads
// - for longer rows a cluster of 2, 4 or 8 blocks, up to 256 K classes; the blocks exchange their
//   sums once.  Beyond, and on devices without clusters, one block does a piece after the other, in
//   two reads and two exp, with the same bits
// N, a sum of label weights, has a launch of its own before, the total one after: no atomics.
// Arrays of bf16 are done as those of f32: registers hold floats, sums and loss are f32.
// Numerics: how a row is cut among threads depends on C alone; exp and log are cuda/math.cuh.
#include "cuda/math.cuh"
#include "cuda/reduce.cuh"
#include "ops/cross_entropy/cross_entropy.h"

namespace fastdl::FASTDL_ISA {
namespace {

enum class Target { label, smoothed, soft };
enum class Team { warp, block, cluster, turns };  // turns: a block, piece after piece
constexpr int kRowsOfWarps = 8;                   // a block of 256 threads where a team is a warp
constexpr int kRowThreads = 512, kHeldPacks = 16, kMaxPieces = 8;  // of a row in a cluster

/// What all rows of a call share.
template <class S>
struct Call {
  using T = Compute<S>;
  const S* X;
  const T *P, *w;
  S* dX;
  T *loss, *count;  // count: N, where the labels decide it; else null
  const void* t;
  bool t_is_32;
  int pieces = 1;  // of a row
  int64_t B, C, ignore_index;
  T certain, uniform;  // 1 - s, s / C
  T n;                 // N where `count` is null
  Bounds labels;

  /// A label that is no class is reported and then ignored.
  FASTDL_DEVICE int64_t label(int64_t i) const {
    const int64_t c =
        t_is_32 ? static_cast<const int32_t*>(t)[i] : static_cast<const int64_t*>(t)[i];
    return c == ignore_index || labels.admit(c, i) ? c : ignore_index;
  }
  FASTDL_DEVICE T weight_of_class(int64_t c) const { return w ? w[c] : T(1); }
  FASTDL_DEVICE T weight_of_row(int64_t i) const {
    const int64_t c = label(i);
    return c == ignore_index ? T(0) : weight_of_class(c);
  }
};

/// The maximum of a piece, and its sums of e, w q z and w q, the latter two without the label's own
/// share.
template <class T>
struct Sums {
  T hi, e, qz, q;
};

/// a b, where an a of 0 silences even an infinite b.
template <class T>
FASTDL_DEVICE T silenced(T a, T b) {
  return a == T(0) ? a : a * b;
}

/// The sums over both, for the larger maximum.
template <class T>
FASTDL_DEVICE Sums<T> join(const Sums<T>& a, const Sums<T>& b) {
  const T hi = Max{}(a.hi, b.hi), da = a.hi - hi, db = b.hi - hi;
  return {hi, fma(a.e, exp_of_negative(da), b.e * exp_of_negative(db)),
          a.qz + silenced(a.q, da) + (b.qz + silenced(b.q, db)), a.q + b.q};
}

/// w q of class j, without the label's own share.
template <Target K, class S>
FASTDL_DEVICE Compute<S> weighted_target(const Call<S>& c, const Compute<S>* p, int64_t j) {
  Compute<S> q = c.uniform;
  if (K == Target::soft) q = fma(p[j], c.certain, q);
  return q * c.weight_of_class(j);
}

/// The threads that share a piece.
template <Team kTeam>
struct Threads {
  FASTDL_DEVICE static int count() { return kTeam == Team::warp ? kWarpSize : int(blockDim.x); }
  FASTDL_DEVICE static int rank() { return int(threadIdx.x) % count(); }
  FASTDL_DEVICE static int piece() { return kTeam == Team::cluster ? cluster_rank() : 0; }
  FASTDL_DEVICE static bool lead() { return rank() == 0 && piece() == 0; }
  FASTDL_DEVICE static int64_t row(int pieces) {
    if (kTeam == Team::warp) return int64_t(blockIdx.x) * kRowsOfWarps + threadIdx.x / kWarpSize;
    return kTeam == Team::cluster ? blockIdx.x / unsigned(pieces) : blockIdx.x;
  }
  template <class T, class F>
  FASTDL_DEVICE static T join(T v, T* shared, F f) {
    if constexpr (kTeam == Team::warp)
      return join_warp(v, f);
    else
      return join_block(v, shared, f);
  }
};

/// A thread's packs of a piece of a row.  They stay in registers, as x and then as e; in turns they
/// are loaded each time.
template <class S, int kPacks, Team kTeam>
struct Part {
  using T = Compute<S>;
  using Its = Threads<kTeam>;
  static constexpr bool kWhole = kTeam == Team::warp;
  static constexpr bool kHeld = kTeam != Team::turns;
  using Index = std::conditional_t<kWhole, int, int64_t>;

  const Call<S>& c;
  const S* x;
  Pack<T> held[kHeld ? kPacks : 1];

  /// The first class of a pack.
  FASTDL_DEVICE Index first(int piece, int k) const {
    return (Index(kWhole ? k : k * c.pieces + piece) * Its::count() + Its::rank()) * kPack<T>;
  }
  /// Calls f(j, n, x) for each pack: its first class, the classes from there on, and its x or e.
  template <class F>
  FASTDL_DEVICE void visit(int piece, F&& f) {
    auto step = [&](int k) {
      const Index j = first(piece, k), n = Index(c.C) - j;
      if (n <= 0) return;
      if constexpr (kHeld) {
        f(j, n, held[k]);
      } else {
        Pack<T> v = load(x + j, n, -infinity<T>());
        f(j, n, v);
      }
    };
    if constexpr (kHeld)
      unroll<kPacks>(step);
    else
      for (int k = 0; k < kPacks; ++k) step(k);
  }
  /// The same with e; no pass over x can follow.
  template <class F>
  FASTDL_DEVICE void visit_exp(int piece, T hi, F&& f) {
    visit(piece, [&](Index j, Index n, Pack<T>& v) {
      v = map(v, [&](T z) { return exp_of_negative(z - hi); });
      f(j, n, v);
    });
  }
  /// Pass 1.  Loads x, with -inf behind the row; the maximum is finite where all x are -inf.
  FASTDL_DEVICE T maximum(int piece, T* shared) {
    if constexpr (kHeld)
      unroll<kPacks>([&](int k) {
        const Index j = first(piece, k);
        held[k] = load<true>(x + j, Index(c.C) - j, -infinity<T>());
      });
    T hi = lowest<T>();
    visit(piece, [&](Index, Index, const Pack<T>& v) {
      unroll<kPack<T>>([&](int e) { hi = Max{}(v.at[e], hi); });
    });
    return Its::join(hi, shared, Max{});
  }
  /// Passes 1 and 2.
  template <Target K>
  FASTDL_DEVICE Sums<T> sums(const T* p, int piece, T* shared) {
    Sums<T> s{maximum(piece, shared), 0, 0, 0};
    if (K != Target::label) {
      visit(piece, [&](Index j, Index n, const Pack<T>& v) {
        unroll<kPack<T>>([&](int e) {
          if (e >= n) return;
          const T q = weighted_target<K>(c, p, j + e);
          s.qz += silenced(q, v.at[e] - s.hi), s.q += q;
        });
      });
      s.qz = Its::join(s.qz, shared, Add{});
      s.q = Its::join(s.q, shared, Add{});
    }
    visit_exp(piece, s.hi, [&](Index, Index, const Pack<T>& v) {
      unroll<kPack<T>>([&](int e) { s.e += v.at[e]; });
    });
    s.e = Its::join(s.e, shared, Add{});
    return s;
  }
};

/// The sums of the row from those of the blocks of the cluster, in their order.
template <class T>
FASTDL_DEVICE Sums<T> join_cluster(const Sums<T>& own, Sums<T>* all, int pieces) {
  cluster_sync();  // all blocks have started
  if (int(threadIdx.x) < pieces) of_rank(all, int(threadIdx.x))[cluster_rank()] = own;
  cluster_sync();
  Sums<T> s = all[0];
  for (int k = 1; k < pieces; ++k) s = join(s, all[k]);
  return s;
}

template <Target K, int kPacks, Team kTeam, class S>
__global__ void __launch_bounds__(kTeam == Team::warp ? kWarpSize * kRowsOfWarps : kRowThreads)
    rows_kernel(const __grid_constant__ Call<S> c) {
  using T = Compute<S>;
  using Its = Threads<kTeam>;
  using Index = typename Part<S, kPacks, kTeam>::Index;
  constexpr bool kTurns = kTeam == Team::turns;
  FASTDL_SHARED(T, shared, kWarpSize);
  FASTDL_SHARED(Sums<T>, all, kTeam == Team::cluster ? kMaxPieces : 1);
  const int64_t i = Its::row(c.pieces);
  if (i >= c.B) return;  // warps without a row; no team is divided
  const T* p = K == Target::soft ? c.P + i * c.C : nullptr;
  S* dx = c.dX ? c.dX + i * c.C : nullptr;
  const int piece = Its::piece(), pieces = kTurns ? c.pieces : 1;
  Part<S, kPacks, kTeam> part{c, c.X + i * c.C, {}};

  const int64_t label = K == Target::soft ? -1 : c.label(i);
  if (K != Target::soft && label == c.ignore_index) {
    if (Its::lead()) c.loss[i] = 0;
    for (int k = 0; dx && k < pieces; ++k)
      part.visit(piece + k, [&](Index j, Index n, Pack<T>&) { store<true>(dx + j, Pack<T>{}, n); });
    return;
  }
  const Sums<T> first = part.template sums<K>(p, piece, shared);
  Sums<T> row = first;
  for (int k = 1; k < pieces; ++k) row = join(row, part.template sums<K>(p, k, shared));
  if constexpr (kTeam == Team::cluster) row = join_cluster(first, all, c.pieces);

  const Index t = Index(label);
  const T own = K == Target::soft ? T(0) : c.certain * c.weight_of_class(t);
  const T weight = own + row.q, g = 1 / (c.count ? *c.count : c.n);
  if (Its::lead()) {
    const T linear = row.qz + (own != T(0) ? own * (widened(part.x[t]) - row.hi) : T(0));
    c.loss[i] = fma(weight, log_of(row.e), -linear);
  }
  if (!dx) return;
  const T factor = weight * g / row.e;
  for (int k = 0; k < pieces; ++k) {
    const T hi = kTurns ? part.maximum(k, shared) : first.hi;
    const T moved =
        kTurns || kTeam == Team::cluster ? factor * exp_of_negative(hi - row.hi) : factor;
    auto write = [&](Index j, Index n, const Pack<T>& v) {
      Pack<T> slope;
      unroll<kPack<T>>([&](int e) {
        const T q = K == Target::label || e >= n ? T(0) : weighted_target<K>(c, p, j + e);
        slope.at[e] = fma(-(j + e == t ? q + own : q), g, v.at[e] * moved);
      });
      store<true>(dx + j, slope, n);
    };
    kTurns ? part.visit_exp(k, hi, write) : part.visit(piece, write);
  }
}

/// N = the sum of w_t over the rows that count.
template <class S>
__global__ void __launch_bounds__(kMaxBlockThreads)
    count_kernel(const __grid_constant__ Call<S> c) {
  using T = Compute<S>;
  FASTDL_SHARED(T, shared, kWarpSize);
  T sum = 0;
  for (int64_t i = threadIdx.x; i < c.B; i += blockDim.x) sum += c.weight_of_row(i);
  sum = join_block(sum, shared, Add{});
  if (threadIdx.x == 0) *c.count = sum;
}

/// Rows of several pieces.
template <Target K, class S>
void long_rows(Call<S> c) {
  const int64_t packs = ceil_div(c.C, kPack<S>), half = kHeldPacks * kRowThreads / 2;
  const int threads = packs <= kMaxPieces * half ? kRowThreads / 2 : kRowThreads;
  const int64_t pieces = ceil_div(packs, kHeldPacks * threads);
  c.pieces = 2;
  while (c.pieces < pieces && c.pieces < kMaxPieces) c.pieces *= 2;
  if (pieces <= c.pieces && c.pieces <= max_cluster()) {
    const Grid grid(c.B * c.pieces, threads, c.pieces);
    launch(&rows_kernel<K, kHeldPacks, Team::cluster, S>, grid, c);
  } else {
    c.pieces = max_of(c.pieces, int(pieces));
    launch(&rows_kernel<K, kHeldPacks, Team::turns, S>, c.B, threads, c);
  }
}

template <Target K, class S>
void all_rows(const Call<S>& c) {
  const int threads = min_of(threads_for_row<S>(c.C), kRowThreads);
  const int64_t packs = ceil_div(c.C, kPack<S>);
  if (threads == kWarpSize)
    launch(&rows_kernel<K, 4, Team::warp, S>, ceil_div(c.B, kRowsOfWarps), kWarpSize * kRowsOfWarps,
           c);
  else if (packs <= 4 * threads)
    launch(&rows_kernel<K, 4, Team::block, S>, c.B, threads, c);
  else if (packs <= kHeldPacks * kRowThreads / 2)
    launch(&rows_kernel<K, kHeldPacks, Team::block, S>, c.B, kRowThreads / 2, c);
  else
    long_rows<K>(c);
}

template <class S>
void forward(const CrossEntropyForward& op, const Workspace& ws) {
  using T = Compute<S>;
  Call<S> c{};
  c.X = op.X.as<S>(), c.P = op.P.as<T>(), c.w = op.w.as<T>(), c.dX = op.dX.as<S>();
  c.B = op.X.shape[0], c.C = op.X.shape[1], c.ignore_index = op.ignore_index;
  c.t = op.t.data, c.t_is_32 = op.t.dtype == DType::i32;
  c.loss = op.loss ? op.loss.as<T>() : reinterpret_cast<T*>(ws.shared);
  c.certain = T(1 - op.label_smoothing), c.uniform = T(op.label_smoothing / double(c.C));
  c.labels = {ws.fault, op.kBadLabel, c.C};
  c.n = op.reduction == Reduction::mean ? T(c.B) : T(1);
  if (op.t && op.reduction == Reduction::mean && c.B) {
    c.count = reinterpret_cast<T*>(ws.shared + aligned_bytes(c.B * int64_t(sizeof(T))));
    launch(&count_kernel<S>, 1, threads_for_row<T>(c.B), c);
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
  with_stored(op.X.dtype, [&](auto* t) { forward<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
