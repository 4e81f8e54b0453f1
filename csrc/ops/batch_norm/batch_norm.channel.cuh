#pragma once
// A channel of batch_norm on chip: the blocks of a cluster copy it into their shared memory, sum it
// there, exchange the sums and write the output.  X (and dY) are read once.
//
// A channel's packs belong to 8 groups, and within a group to its 256 threads, in turn.  A block of a
// cluster of k takes every k-th group; where the channel does not fit (no clusters, less shared
// memory), each group has a block of its own that leaves its sums in memory.  The bits are the same.
#include "ops/batch_norm/batch_norm.cuda.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kGroups = BatchNormPlan::kGroups;

/// A channel as packs, row by row.
template <class S>
struct Packs {
  int64_t C, width;
  unsigned of_row, all, rounds;  // rounds: packs of a thread of a group, at most

  explicit Packs(const BatchNormPlan& p)
      : C(p.C),
        width(p.S),
        of_row(unsigned(ceil_div(p.S, kPack<S>))),
        all(of_row * unsigned(p.N)),
        rounds(unsigned(ceil_div(all, kGroups * kThreads))) {}

  /// Calls f(round, i, n) for the thread's packs of a group: where the pack lies in the array, and
  /// how many values the row has from there on.
  template <class F>
  FASTDL_DEVICE void visit(int64_t c, int group, F&& f) const {
    constexpr unsigned kStride = kGroups * kThreads;
    const unsigned rows = kStride / of_row, rest = kStride - rows * of_row;
    unsigned q = unsigned(group) * kThreads + threadIdx.x, row = q / of_row, j = q - row * of_row;
    for (unsigned round = 0; q < all; ++round, q += kStride) {
      const int64_t first = int64_t(j) * kPack<S>;
      f(round, (row * C + c) * width + first, width - first);
      row += rows, j += rest;
      if (j >= of_row) j -= of_row, ++row;
    }
  }
};

/// The sums of the channel from those of its groups.
template <class P>
FASTDL_DEVICE Sums join_groups(const Sums* groups, const P& problem) {
  return join_warp(groups[threadIdx.x % kGroups], problem, kGroups);
}

/// Without a place for the channel on chip: the sums of a group by each block.
template <class S, class P>
__global__ void __launch_bounds__(kThreads)
    group_sums(const __grid_constant__ P problem, const __grid_constant__ Packs<S> packs,
               Sums* groups) {
  using T = Compute<S>;
  FASTDL_SHARED(Sums, shared, kWarps);
  const int64_t c = blockIdx.x / kGroups;
  const Channel<T> channel = problem.channel(c);
  Running<T> r;
  packs.visit(c, int(blockIdx.x % kGroups), [&](unsigned, int64_t i, int64_t n) {
    const Pack<T> v = load(problem.x + i, n);
    problem.add(r, v, P::kArrays == 2 ? load(slopes(problem) + i, n) : v, n, channel);
  });
  const Sums sums = join_block(P::done(r), shared, problem);
  if (threadIdx.x == 0) groups[blockIdx.x] = sums;
}

/// The whole pass, by a cluster for each channel.
template <class S, class P>
__global__ void __launch_bounds__(kThreads)
    channel_kernel(const __grid_constant__ P problem, const __grid_constant__ Packs<S> packs,
                   int blocks) {
  using T = Compute<S>;
  FASTDL_SHARED(Sums, shared, kWarps);
  FASTDL_SHARED(Sums, groups, kGroups);
  FASTDL_DYNAMIC_SHARED(Pack<S>, held);
  const int64_t c = blockIdx.x / unsigned(blocks);
  const int rank = cluster_rank(), own = kGroups / blocks;
  const S* dy = slopes(problem);
  auto place = [&](int g, unsigned round, int array) {
    return held + ((unsigned(g) * packs.rounds + round) * P::kArrays + array) * kThreads +
           threadIdx.x;
  };
  for (int g = 0; g < own; ++g)
    packs.visit(c, g * blocks + rank, [&](unsigned round, int64_t i, int64_t n) {
      load_async(place(g, round, 0), problem.x + i, n);
      if (P::kArrays == 2) load_async(place(g, round, 1), dy + i, n);
    });
  __pipeline_commit();
  const Channel<T> channel = problem.channel(c);
  cluster_sync();            // all blocks have started
  __pipeline_wait_prior(0);  // a thread reads what it has copied itself

  for (int g = 0; g < own; ++g) {
    const int group = g * blocks + rank;
    Running<T> r;
    packs.visit(c, group, [&](unsigned round, int64_t, int64_t n) {
      problem.add(r, widened(*place(g, round, 0)), widened(*place(g, round, P::kArrays - 1)), n,
                  channel);
    });
    const Sums sums = join_block(P::done(r), shared, problem);
    if (int(threadIdx.x) < blocks) of_rank(groups, int(threadIdx.x))[group] = sums;
  }
  cluster_sync();

  const bool writes = rank == 0 && threadIdx.x == 0;
  const Coefficients<T> k = problem.finish(c, join_groups(groups, problem), writes);
  for (int g = 0; g < own; ++g)
    packs.visit(c, g * blocks + rank, [&](unsigned round, int64_t i, int64_t n) {
      const Pack<T> v = widened(*place(g, round, 0)), s = widened(*place(g, round, P::kArrays - 1));
      store<true>(problem.y + i, map(v, s, [&](T x, T g) { return problem.value(x, g, k); }), n);
    });
}

/// Blocks of a cluster that hold a channel together, or 0: as few as hold it, and more where that
/// would leave most of a GPU idle.
template <class S, class P>
int blocks_of_channel(const Packs<S>& packs) {
  constexpr int64_t kBeside = 2048;  // for the other shared arrays
  constexpr int64_t kBusy = 128;     // blocks
  const int most = min_of(max_cluster(), kGroups);
  const int64_t group = int64_t(packs.rounds) * P::kArrays * kThreads * int64_t(sizeof(Pack<S>));
  for (int blocks = 1; blocks <= most; blocks *= 2) {
    if (kGroups / blocks * group + kBeside > max_shared_bytes()) continue;
    while (blocks < most && packs.C * blocks * 2 <= kBusy) blocks *= 2;
    return blocks;
  }
  return 0;
}

/// Whether the pass is done.
template <class S, class P>
bool run_on_chip(const P& problem, const Packs<S>& packs) {
  const int blocks = blocks_of_channel<S, P>(packs);
  if (!blocks) return false;
  const int64_t bytes =
      int64_t(kGroups / blocks) * packs.rounds * P::kArrays * kThreads * int64_t(sizeof(Pack<S>));
  launch(&channel_kernel<S, P>, Grid(packs.C * blocks, kThreads, blocks, bytes), problem, packs,
         blocks);
  return true;
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
