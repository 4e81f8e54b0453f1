#pragma once
// 16 bytes of elements, what one thread loads at best, and element-wise kernels made of them.
// A pack of bf16 has 8 bytes: in registers it is a pack of floats, so a kernel cuts and sums arrays
// of both alike, with the same bits.
#include "cuda/port.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T>
constexpr int kPack = 16 / int(sizeof(Compute<T>));

template <class T>
struct alignas(kPack<T> * sizeof(T)) Pack {
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
  return n >= kPack<T> && reinterpret_cast<uintptr_t>(p) % sizeof(Pack<T>) == 0;
}
/// A pack as it is in memory, in the type to compute in; and back.
template <class T>
FASTDL_DEVICE const Pack<T>& widened(const Pack<T>& pack) {
  return pack;
}
FASTDL_DEVICE Pack<float> widened(const Pack<Bf16>& stored) {
  Pack<float> pack;
  unroll<kPack<Bf16>>([&](int k) { pack.at[k] = widened(stored.at[k]); });
  return pack;
}
template <class S>
FASTDL_DEVICE Pack<S> rounded(const Pack<Compute<S>>& pack) {
  Pack<S> stored;
  unroll<kPack<S>>([&](int k) { stored.at[k] = rounded<S>(pack.at[k]); });
  return stored;
}
/// Whether a pack is the same in memory and in registers: then it is moved whole.  GCC 12 takes the
/// accesses to its elements for aligned even where the address is found not to be.
template <class S>
constexpr bool kAsStored = std::is_same_v<S, Compute<S>>;

/// The first n elements from p on, n of any size, the others `rest`: one access where p is aligned.
/// kOnce: nobody reads them again, so caches need not keep them.
template <bool kOnce = false, class S>
FASTDL_DEVICE Pack<Compute<S>> load(const S* p, int64_t n, Compute<S> rest = 0) {
  const auto* whole = reinterpret_cast<const Pack<S>*>(p);
  if (is_whole(p, n)) {
    if constexpr (kAsStored<S>)
      return kOnce ? load_once(whole) : *whole;
    else
      return widened(kOnce ? load_once(whole) : *whole);
  }
  Pack<Compute<S>> pack;
  unroll<kPack<S>>([&](int k) { pack.at[k] = k < n ? widened(p[k]) : rest; });
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
    if (k >= n) return;
    if constexpr (sizeof(T) < 4)  // less than what can be copied so
      shared->at[k] = p[k];
    else
      __pipeline_memcpy_async(&shared->at[k], p + k, sizeof(T));
  });
}
template <bool kOnce = false, class S>
FASTDL_DEVICE void store(S* p, const Pack<Compute<S>>& pack, int64_t n) {
  auto* whole = reinterpret_cast<Pack<S>*>(p);
  if (is_whole(p, n)) {
    if constexpr (kAsStored<S>)
      kOnce ? store_once(whole, pack) : void(*whole = pack);
    else
      kOnce ? store_once(whole, rounded<S>(pack)) : void(*whole = rounded<S>(pack));
    return;
  }
  unroll<kPack<S>>([&](int k) {
    if (k < n) p[k] = rounded<S>(pack.at[k]);
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
