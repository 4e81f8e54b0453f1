#pragma once
// Rows by teams of threads: the lanes of a warp that a short row needs, or a whole block, with the row
// in registers where it fits.
#include "cuda/reduce.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

/// Threads of a block whose teams are lanes of a warp, and of a team that is a block at most: with more
/// of them 64 registers a thread would not hold 8 packs and what exp needs.
constexpr int kLaneTeamThreads = 256, kBlockTeamThreads = 512;
template <bool kWarp>
constexpr int kTeamThreads = kWarp ? kLaneTeamThreads : kBlockTeamThreads;

/// The threads that share a row.
template <bool kWarp>
struct Team {
  int lanes = kWarpSize;  // of a team within a warp, a power of 2

  FASTDL_DEVICE int size() const { return kWarp ? lanes : int(blockDim.x); }
  FASTDL_DEVICE int rank() const { return int(threadIdx.x) % size(); }
  FASTDL_DEVICE int64_t row() const {
    if (!kWarp) return blockIdx.x;
    return int64_t(blockIdx.x) * (int(blockDim.x) / lanes) + int(threadIdx.x) / lanes;
  }
  /// `shared` has room for a value per warp.  All lanes of a warp must come here together.
  template <class V, class F>
  FASTDL_DEVICE V join(V v, V* shared, F f) const {
    if constexpr (kWarp)
      return join_warp(v, f, lanes);
    else
      return join_block(v, shared, f);
  }
};

/// A thread's packs of a row: kPacks of them in registers, or with kPacks = 0 loaded each time.
template <class S, int kPacks, bool kWarp>
struct RowPart {
  using T = Compute<S>;
  Pack<T> held[kPacks ? kPacks : 1];

  /// Calls f(j, n, pack) for each pack; `first`: they are loaded now, with `rest` behind the row.
  template <class F>
  FASTDL_DEVICE void visit(const Team<kWarp>& team, const S* x, int64_t C, bool first, T rest,
                           F&& f) {
    if constexpr (kPacks > 0) {
      unroll<kPacks>([&](int k) {
        const int j = (k * team.size() + team.rank()) * kPack<T>, n = int(C) - j;
        if (first) held[k] = load(x + j, n, rest);
        if (n > 0) f(j, n, held[k]);
      });
    } else {
      for (int64_t j = team.rank() * kPack<T>; j < C; j += int64_t(team.size()) * kPack<T>) {
        Pack<T> p = load(x + j, C - j, rest);
        f(j, C - j, p);
      }
    }
  }
};

/// Calls launches(kPacks, kWarp, blocks, threads, lanes), the first two as types, for B rows of C
/// elements: as few threads a row as hold 4 packs of it each, or 8 in the longest rows that fit the
/// registers of a block; what is longer is read again from the caches.  How a row is cut is a function
/// of C alone, since it decides the bits.
template <class T, class F>
void for_each_row(int64_t B, int64_t C, F&& launches) {
  using std::integral_constant;
  int threads = 1;
  while (threads < kBlockTeamThreads && int64_t(threads) * 4 * kPack<T> < C) threads *= 2;
  const int64_t packs = ceil_div(C, int64_t(threads) * kPack<T>);
  if (threads <= kWarpSize)
    launches(integral_constant<int, 4>{}, std::true_type{}, ceil_div(B, kLaneTeamThreads / threads),
             kLaneTeamThreads, threads);
  else if (packs <= 4)
    launches(integral_constant<int, 4>{}, std::false_type{}, B, threads, kWarpSize);
  else if (packs <= 8)
    launches(integral_constant<int, 8>{}, std::false_type{}, B, threads, kWarpSize);
  else
    launches(integral_constant<int, 0>{}, std::false_type{}, B, threads, kWarpSize);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
