#pragma once
// Sums and maxima over a row by the threads of a block, with bits that depend on the length of the
// row alone: a thread takes every (block size)-th pack, in order; then fixed trees join the lanes
// of a warp and the warps.
#include "cuda/pack.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

struct Add {
  template <class T>
  FASTDL_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN may be kept or lost.
struct Max {
  template <class T>
  FASTDL_DEVICE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

constexpr int kMaxBlockThreads = 1024;

/// Threads for a row of n elements: a function of its length alone, since it decides the bits.
template <class T>
int threads_for_row(int64_t n) {
  int threads = kWarpSize;
  while (threads < kMaxBlockThreads && int64_t(threads) * 4 * kPack<T> < n) threads *= 2;
  return threads;
}

/// The value of the lane whose number differs in `bits`; types of several numbers overload it.
template <class V>
FASTDL_DEVICE V of_partner(V v, int bits) {
  return __shfl_xor_sync(kAllLanes, v, bits);
}

/// Joins the values of every `width` neighbouring lanes of a warp; all get the result.
template <class V, class F>
FASTDL_DEVICE V join_warp(V v, F f, int width = kWarpSize) {
  for (int bits = width / 2; bits; bits /= 2) v = f(v, of_partner(v, bits));
  return v;
}

/// Joins the values of the threads of a block, whose size is a power of 2 of at least a warp; all
/// get the result.  `shared` has room for a value per warp.
template <class V, class F>
FASTDL_DEVICE V join_block(V v, V* shared, F f) {
  v = join_warp(v, f);
  const int warps = int(blockDim.x) / kWarpSize;
  if (warps == 1) return v;
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = v;
  __syncthreads();
  v = join_warp(shared[threadIdx.x % warps], f, warps);
  __syncthreads();  // so that `shared` can be used again
  return v;
}

/// Calls body(i, n) for the thread's packs of a row of `size` elements.
template <class T, class Body>
FASTDL_DEVICE void for_packs_of_row(int64_t size, Body&& body) {
  const int64_t stride = int64_t(blockDim.x) * kPack<T>;
  for (int64_t i = int64_t(threadIdx.x) * kPack<T>; i < size; i += stride) body(i, size - i);
}

/// *total = sum of the values / *count, or / divisor where there is no count.  One block.
template <class T>
__global__ void __launch_bounds__(kMaxBlockThreads)
    total_kernel(const T* values, int64_t n, const T* count, T divisor, T* total) {
  FASTDL_SHARED(T, shared, kWarpSize);
  T sum = 0;
  for_packs_of_row<T>(n, [&](int64_t i, int64_t left) {
    const Pack<T> p = load(values + i, left);
    T part = 0;
    unroll<kPack<T>>([&](int k) { part += p.at[k]; });
    sum += part;
  });
  sum = join_block(sum, shared, Add{});
  if (threadIdx.x == 0) *total = sum / (count ? *count : divisor);
}
template <class T>
void total_of(const T* values, int64_t n, const T* count, T divisor, T* total) {
  launch(&total_kernel<T>, 1, threads_for_row<T>(n), values, n, count, divisor, total);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
