#pragma once
// 16 bytes of elements, what one thread loads at best, and element-wise kernels made of them.
#include "cuda/port.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
constexpr int kPack = 16 / int(sizeof(T));

template <class T>
struct alignas(16) Pack {
  T at[kPack<T>];
};

/// Calls f(0), f(1), ..., f(N - 1), unrolled.
template <int N, class F>
FASTDL_DEVICE void unroll(F&& f) {
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < N; ++i) f(i);
}

template <class T>
FASTDL_DEVICE bool is_whole(const T* p, int64_t n) {
  return n >= kPack<T> && reinterpret_cast<uintptr_t>(p) % 16 == 0;
}
/// The first n elements from p on, n of any size, the others `rest`: one access where p is aligned.
/// kOnce: nobody reads them again, so caches need not keep them.
template <bool kOnce = false, class T>
FASTDL_DEVICE Pack<T> load(const T* p, int64_t n, T rest = T(0)) {
  const auto* whole = reinterpret_cast<const Pack<T>*>(p);
  if (is_whole(p, n)) return kOnce ? load_once(whole) : *whole;
  Pack<T> pack;
  unroll<kPack<T>>([&](int k) { pack.at[k] = k < n ? p[k] : rest; });
  return pack;
}
/// Starts to copy the first n elements from p on to shared memory.
template <class T>
FASTDL_DEVICE void load_async(Pack<T>* shared, const T* p, int64_t n) {
  if (is_whole(p, n)) {
    __pipeline_memcpy_async(shared, p, sizeof(Pack<T>));
    return;
  }
  unroll<kPack<T>>([&](int k) {
    if (k < n) __pipeline_memcpy_async(&shared->at[k], p + k, sizeof(T));
  });
}
template <bool kOnce = false, class T>
FASTDL_DEVICE void store(T* p, const Pack<T>& pack, int64_t n) {
  auto* whole = reinterpret_cast<Pack<T>*>(p);
  if (is_whole(p, n)) {
    kOnce ? store_once(whole, pack) : void(*whole = pack);
    return;
  }
  unroll<kPack<T>>([&](int k) {
    if (k < n) p[k] = pack.at[k];
  });
}

/// f of each element of one or two packs.
template <class T, class F>
FASTDL_DEVICE Pack<T> map(const Pack<T>& a, F f) {
  Pack<T> y;
  unroll<kPack<T>>([&](int k) { y.at[k] = f(a.at[k]); });
  return y;
}
template <class T, class F>
FASTDL_DEVICE Pack<T> map(const Pack<T>& a, const Pack<T>& b, F f) {
  Pack<T> y;
  unroll<kPack<T>>([&](int k) { y.at[k] = f(a.at[k], b.at[k]); });
  return y;
}

constexpr int kFlatThreads = 256;
/// Blocks of an element-wise kernel at most: 8 of 256 threads for each of 132 multiprocessors fill
/// an H100; longer arrays are walked in strides.  An element's bits do not depend on it.
constexpr int64_t kFlatBlocks = 132 * 8;

template <int kStep, class Body>
__global__ void __launch_bounds__(kFlatThreads)
    steps_kernel(int64_t size, const __grid_constant__ Body body) {
  const int64_t stride = int64_t(gridDim.x) * kFlatThreads * kStep;
  int64_t i = (int64_t(blockIdx.x) * kFlatThreads + threadIdx.x) * kStep;
  for (; i < size; i += stride) body(i, size - i);
}

/// Runs body(i, n) for i = 0, kStep, 2 kStep, ..., each by a thread: it does the next kStep
/// elements, or n if there are fewer.
template <int kStep, class Body>
void for_each_step(int64_t size, const Body& body) {
  if (size == 0) return;
  const int64_t blocks = min_of(kFlatBlocks, ceil_div(size, kFlatThreads * kStep));
  launch(&steps_kernel<kStep, Body>, blocks, kFlatThreads, size, body);
}
template <class T, class Body>
void for_each_pack(int64_t size, const Body& body) {
  for_each_step<kPack<T>>(size, body);
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
