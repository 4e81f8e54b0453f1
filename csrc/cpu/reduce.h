#pragma once
// Row reductions with the same bits on every vector width, and what they are made of.
//
// A sum runs in 16 virtual lanes: element j of a row belongs to lane j mod 16, whether a vector has
// 16 lanes or 2.  Within a block of kSumBlock elements each lane is one chain; the blocks are added
// in order, lane by lane; then a fixed tree (i with i + 8, i + 4, i + 2, i + 1) joins the lanes.
// The blocks keep the error of long rows near that of pairwise summation: a sum of n terms takes
// part in at most 64 + n / 1024 roundings per lane.
#include <utility>

#include "cpu/loop.h"
#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kWide = 16;
constexpr int64_t kSumBlock = 1024;

/// W times 16 lanes in as many vectors as they take.
template <class T, int W = 1>
struct Wide {
  static constexpr int kParts = W * kWide / kLanes<T>;
  Vec<T> part[kParts];
};
/// The W whose vectors, and as many for each of some three temporaries, fit the registers beside the
/// constants of a function.
template <class T>
constexpr int kAbreast = kRegisters / 8 > Wide<T>::kParts ? kRegisters / 8 / Wide<T>::kParts : 1;

/// The Wide with parts f(0), f(1), ...; f takes an integral_constant.
template <class T, int W = 1, class F>
FASTDL_INLINE Wide<T, W> wide(F f) {
  Wide<T, W> w;
  unroll<Wide<T, W>::kParts>([&](auto k) FASTDL_UNROLLED { w.part[k] = f(k); });
  return w;
}
template <class T>
FASTDL_INLINE Wide<T> wide_broadcast(T x) {
  const Vec<T> v = broadcast(x);
  return wide<T>([=](auto) FASTDL_UNROLLED { return v; });
}
template <class T>
FASTDL_INLINE Wide<T> operator+(const Wide<T>& a, const Wide<T>& b) {
  return wide<T>([&](auto k) FASTDL_UNROLLED { return a.part[k] + b.part[k]; });
}

template <class T, int... I>
FASTDL_INLINE Vec<IntOf<T>> lane_numbers(std::integer_sequence<int, I...>) {
  return Vec<IntOf<T>>{I...};
}
/// 0, 1, 2, ...
template <class T>
FASTDL_INLINE Vec<IntOf<T>> lane_numbers() {
  return lane_numbers<T>(std::make_integer_sequence<int, kLanes<T>>());
}

/// The first n lanes from memory (n of any size), the others `rest`.
template <class T>
FASTDL_INLINE Vec<T> load_or(const T* p, int64_t n, T rest) {
  if (n >= kLanes<T>) return load(p);
  const auto inside = lane_numbers<T>() < Vec<IntOf<T>>{} + IntOf<T>(n);
  return select<T>(inside, load_masked(p, first_lanes<T>(n)), broadcast(rest));
}
/// The first n lanes of v, the others zero.
template <class T>
FASTDL_INLINE Vec<T> first_of(Vec<T> v, int64_t n) {
  if (n >= kLanes<T>) return v;
  return select<T>(lane_numbers<T>() < Vec<IntOf<T>>{} + IntOf<T>(n), v, Vec<T>{});
}
template <int W = 1, class T>
FASTDL_INLINE Wide<T, W> load_wide(const T* p, int64_t n, T rest) {
  return wide<T, W>(
      [=](auto k) FASTDL_UNROLLED { return load_or(p + k * kLanes<T>, n - k * kLanes<T>, rest); });
}
template <class T, int W>
FASTDL_INLINE void store_wide(T* p, const Wide<T, W>& w, int64_t n) {
  unroll<Wide<T, W>::kParts>(
      [&](auto k) FASTDL_UNROLLED { store(p + k * kLanes<T>, w.part[k], n - k * kLanes<T>); });
}

/// v with lane i and lane i ^ Distance exchanged.
template <int Distance, class T, int... I>
FASTDL_INLINE Vec<T> exchange(Vec<T> v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (I ^ Distance)...);
}

/// Joins all lanes of v by f in a fixed tree; every lane of the result holds the value.
template <class T, int Distance = kLanes<T> / 2, class F>
FASTDL_INLINE Vec<T> join_lanes(Vec<T> v, F f) {
  if constexpr (Distance == 0) {
    return v;
  } else {
    const auto lanes = std::make_integer_sequence<int, kLanes<T>>();
    return join_lanes<T, Distance / 2>(f(v, exchange<Distance, T>(v, lanes)), f);
  }
}
/// Joins the parts of w, so that lane i meets lane i + 8 first.
template <class T, int Parts = Wide<T>::kParts, class F>
FASTDL_INLINE Vec<T> join_parts(Wide<T> w, F f) {
  if constexpr (Parts == 1) {
    return w.part[0];
  } else {
    unroll<Parts / 2>([&](auto k)
                          FASTDL_UNROLLED { w.part[k] = f(w.part[k], w.part[k + Parts / 2]); });
    return join_parts<T, Parts / 2>(w, f);
  }
}

/// What lane i of `join_lanes` would be for rows that share one vector: rows without bit Distance
/// in their number are a's, the others b's.
template <int Distance, class T, class F, int... I>
FASTDL_INLINE Vec<T> join_pair(Vec<T> a, Vec<T> b, F f, std::integer_sequence<int, I...>) {
  constexpr int L = kLanes<T>;
  const Vec<T> same = __builtin_shufflevector(a, b, (I & Distance ? I + L : I)...);
  const Vec<T> other = __builtin_shufflevector(a, b, ((I ^ Distance) + (I & Distance ? L : 0))...);
  return f(same, other);
}
/// join_lanes of R vectors, R a power of 2 up to kLanes: lane i kLanes / R of the result belongs to v[i].
/// With R = kLanes a third of the work of joining each alone, with the same tree.
template <class T, int R, int Distance = kLanes<T> / 2, class F>
FASTDL_INLINE Vec<T> join_rows(Vec<T> (&v)[R], F f) {
  if constexpr (Distance == 0) {
    return v[0];
  } else {
    const auto lanes = std::make_integer_sequence<int, kLanes<T>>();
    constexpr int kLeft = R > 1 ? R / 2 : 1;
    Vec<T> joined[kLeft];
    unroll<kLeft>([&](auto k) FASTDL_UNROLLED {
      joined[k] = R > 1 ? join_pair<Distance, T>(v[k], v[R / 2 + k], f, lanes)
                        : f(v[k], exchange<Distance, T>(v[k], lanes));
    });
    return join_rows<T, kLeft, Distance / 2>(joined, f);
  }
}

struct Add {
  template <class V>
  FASTDL_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};
struct Max {
  template <class V>
  FASTDL_INLINE V operator()(V a, V b) const {
    return max(a, b);
  }
};
/// Lane i with lane i + 8, then + 4, + 2, + 1: the sum of the 16 lanes, in every lane.
template <class T>
FASTDL_INLINE Vec<T> sum_of(const Wide<T>& w) {
  return join_lanes<T>(join_parts(w, Add{}), Add{});
}

/// Calls body(j, count) over [0, n) in steps of 16; count < 16 only at the end.
template <class F>
FASTDL_INLINE void for_each_wide(int64_t first, int64_t n, F&& body) {
  int64_t j = first;
  for (; j + kWide <= n; j += kWide) body(j, int64_t{kWide});
  if (j < n) body(j, n - j);
}

/// The 16 lanes of K sums over [0, n): add(j, count, acc) adds elements j .. j + count - 1 to the lanes
/// of acc[0 .. K-1], nothing to lanes from `count` on.  Several chains take turns, 16 elements each:
/// long rows that lie in a cache would wait for the additions of one.
template <class T, int K, int kChains, class F>
FASTDL_INLINE void row_lanes(int64_t n, Wide<T> (&total)[K], F add) {
  unroll<K>([&](auto k) FASTDL_UNROLLED { total[k] = Wide<T>{}; });
  for (int64_t first = 0; first < n; first += kSumBlock) {
    const int64_t last = min_of(n, first + kSumBlock);
    Wide<T> acc[kChains][K];
    unroll<kChains>([&](auto c) FASTDL_UNROLLED {
      unroll<K>([&](auto k) FASTDL_UNROLLED { acc[c][k] = Wide<T>{}; });
    });
    int64_t j = first;
    if constexpr (kChains > 1)
      for (; j + kChains * kWide <= last; j += kChains * kWide)
        unroll<kChains>([&](auto c)
                            FASTDL_UNROLLED { add(j + c * kWide, int64_t{kWide}, acc[c]); });
    for_each_wide(j, last,
                  [&](int64_t at, int64_t count) FASTDL_UNROLLED { add(at, count, acc[0]); });
    unroll<kChains>([&](auto c) FASTDL_UNROLLED {
      unroll<K>([&](auto k) FASTDL_UNROLLED { total[k] = total[k] + acc[c][k]; });
    });
  }
}
/// K sums over [0, n) at once, in one chain each.
template <class T, int K, class F>
FASTDL_INLINE void row_sums(int64_t n, T (&sums)[K], F add) {
  Wide<T> total[K];
  row_lanes<T, K, 1>(n, total, add);
  unroll<K>([&](auto k) FASTDL_UNROLLED { sums[k] = sum_of(total[k])[0]; });
}
/// The same with add(w, j, count, acc), where w is an integral_constant: W, and then count is 16 W, or 1
/// at the end of a block.
template <int W, class T, int K, class F>
FASTDL_INLINE void row_sums_abreast(int64_t n, T (&sums)[K], F add) {
  constexpr int64_t kStep = W * kWide;
  static_assert(kSumBlock % kStep == 0);
  Wide<T> total[K];
  unroll<K>([&](auto k) FASTDL_UNROLLED { total[k] = Wide<T>{}; });
  for (int64_t first = 0; first < n; first += kSumBlock) {
    Wide<T> acc[K];
    unroll<K>([&](auto k) FASTDL_UNROLLED { acc[k] = Wide<T>{}; });
    const int64_t last = min_of(n, first + kSumBlock);
    int64_t at = first;
    for (; W > 1 && at + kStep <= last; at += kStep)
      add(std::integral_constant<int, W>{}, at, kStep, acc);
    for_each_wide(at, last, [&](int64_t j, int64_t count) FASTDL_UNROLLED {
      add(std::integral_constant<int, 1>{}, j, count, acc);
    });
    unroll<K>([&](auto k) FASTDL_UNROLLED { total[k] = total[k] + acc[k]; });
  }
  unroll<K>([&](auto k) FASTDL_UNROLLED { sums[k] = sum_of(total[k])[0]; });
}

/// The sum of x[0 .. n-1]; 0 for n = 0.
template <class T>
FASTDL_INLINE T row_sum(const T* x, int64_t n) {
  T sum[1];
  row_sums<T, 1>(n, sum, [=](int64_t j, int64_t count, Wide<T>* acc) FASTDL_UNROLLED {
    acc[0] = acc[0] + load_wide(x + j, count, T(0));
  });
  return sum[0];
}

/// The maximum of x[0 .. n-1]; -inf for n = 0.  NaN may be kept or lost, on any path.
template <class T>
FASTDL_INLINE T row_max(const T* x, int64_t n) {
  // A maximum is exact in any order; four chains hide the latency of the instruction.
  constexpr int K = 4;
  const T lowest = T(-__builtin_inf());
  Vec<T> hi[K];
  unroll<K>([&](auto k) FASTDL_UNROLLED { hi[k] = broadcast(lowest); });
  int64_t j = 0;
  for (; j + K * kLanes<T> <= n; j += K * kLanes<T>)
    unroll<K>([&](auto k) FASTDL_UNROLLED { hi[k] = max(hi[k], load(x + j + k * kLanes<T>)); });
  for (; j < n; j += kLanes<T>) hi[0] = max(hi[0], load_or(x + j, n - j, lowest));
  return join_lanes<T>(max(max(hi[0], hi[1]), max(hi[2], hi[3])), Max{})[0];
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
