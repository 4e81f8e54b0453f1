#pragma once
// All that kernels need from the machine, in the words of CUDA C++.  nvcc compiles them for the
// device; the host compiler compiles the same files for the emulator (cuda/emulator/emulator.h).
//
// Rules for kernels, which keep both sides and the bits alike:
// - launch() instead of <<< >>>, FASTDL_SHARED instead of __shared__, no inline assembly elsewhere
// - grids and block sizes by shape alone, never by the number of multiprocessors; no float atomics
// - no contraction: fma where the source says so; quotients and roots are rounded correctly
// - a kernel gets pointers and numbers; what changes from step to step it reads from memory
// - a cluster is one block on devices without clusters: how many blocks share the work of a cluster
//   must not show in the bits
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "core/bfloat.h"
#include "core/op.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/stream.h"
#else
#include "cuda/emulator/words.h"
#endif

namespace fastdl::FASTDL_ISA {
namespace {

/// The blocks of a launch.  `cluster` neighbouring ones run together and reach each other's shared
/// memory; `dynamic_bytes` of it belong to FASTDL_DYNAMIC_SHARED.
struct Grid {
  int64_t blocks;
  int threads, cluster;
  int64_t dynamic_bytes;
  std::source_location site;  // names the line that launches in the emulator's messages
  Grid(int64_t blocks, int threads, int cluster = 1, int64_t dynamic_bytes = 0,
       std::source_location site = std::source_location::current())
      : blocks(blocks),
        threads(threads),
        cluster(cluster),
        dynamic_bytes(dynamic_bytes),
        site(site) {}
};

#if defined(__CUDACC__)

#define FASTDL_DEVICE __device__ __forceinline__
/// A pointer `name` to n elements that the threads of a block share.
#define FASTDL_SHARED(T, name, n) \
  __shared__ T name##_array[n];   \
  T* const name = name##_array

/// What a launch sets aside of shared memory, as a pointer `name`.
#define FASTDL_DYNAMIC_SHARED(T, name)                      \
  extern __shared__ __align__(16) unsigned char dynamic_[]; \
  T* const name = reinterpret_cast<T*>(dynamic_)

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// Starts kernel(args...) with `blocks` blocks of `threads` threads.
template <class... P, class... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, A... args) {
  kernel<<<unsigned(blocks), unsigned(threads), 0, cuda::stream>>>(args...);
  check(cudaGetLastError());
}

template <class... P, class... A>
void launch(void (*kernel)(P...), const Grid& grid, A... args) {
  const int bytes = int(grid.dynamic_bytes);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {unsigned(grid.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = unsigned(grid.blocks), config.blockDim = unsigned(grid.threads);
  config.dynamicSmemBytes = size_t(bytes), config.stream = cuda::stream;
  config.attrs = &cluster, config.numAttrs = grid.cluster > 1;
  check(cudaLaunchKernelEx(&config, kernel, P(args)...));
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}
/// Blocks of a cluster at most.
inline int max_cluster() { return device_attribute(cudaDevAttrClusterLaunch) ? 8 : 1; }
/// Bytes of shared memory that a block may have.
inline int64_t max_shared_bytes() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

/// 8 or 16 bytes past the caches, which drop them first.
template <class P>
using WordOf = std::conditional_t<sizeof(P) == sizeof(uint2), uint2, uint4>;
template <class P>
FASTDL_DEVICE P load_once(const P* p) {
  static_assert(sizeof(P) == sizeof(WordOf<P>));
  const WordOf<P> bits = __ldcs(reinterpret_cast<const WordOf<P>*>(p));
  P value;
  memcpy(&value, &bits, sizeof bits);
  return value;
}
template <class P>
FASTDL_DEVICE void store_once(P* p, const P& value) {
  static_assert(sizeof(P) == sizeof(WordOf<P>));
  WordOf<P> bits;
  memcpy(&bits, &value, sizeof bits);
  __stcs(reinterpret_cast<WordOf<P>*>(p), bits);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
FASTDL_DEVICE int cluster_rank() { return int(__clusterRelativeBlockRank()); }
/// Until all threads of the cluster are here, with what they have written.
FASTDL_DEVICE void cluster_sync() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}
/// Where block `rank` has what is at `p` in the shared memory of this block.  That block must have
/// started, and must not end before: cluster_sync() sees to both.
template <class T>
FASTDL_DEVICE T* of_rank(T* p, int rank) {
  return static_cast<T*>(__cluster_map_shared_rank(p, unsigned(rank)));
}
#else
FASTDL_DEVICE int cluster_rank() { return 0; }
FASTDL_DEVICE void cluster_sync() { __syncthreads(); }
template <class T>
FASTDL_DEVICE T* of_rank(T* p, int) {
  return p;
}
#endif

/// Atomically: *p = to if it is 0; returns what it was.
FASTDL_DEVICE int32_t exchange_if_zero(int32_t* p, int32_t to) { return atomicCAS(p, 0, to); }

FASTDL_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FASTDL_DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
FASTDL_DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
FASTDL_DEVICE double sqrt(double x) { return __dsqrt_rn(x); }
FASTDL_DEVICE double pow(double x, double y) { return ::pow(x, y); }
/// By one instruction; as to_bf16() but for the bits of NaN.
FASTDL_DEVICE Bf16 nearest_bf16(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }

#else

using namespace emulator;

#define FASTDL_DEVICE inline __attribute__((always_inline))
#define FASTDL_SHARED(T, name, n)                                   \
  static const char name##_key = 0;                                 \
  T* const name = static_cast<T*>(::fastdl::emulator::shared_array( \
      &name##_key, #name, sizeof(T) * (n), ::fastdl::emulator::Site::current()))
#define FASTDL_DYNAMIC_SHARED(T, name)                                                    \
  FASTDL_SHARED(unsigned char, name##_bytes, ::fastdl::emulator::launched.dynamic_bytes); \
  T* const name = reinterpret_cast<T*>(name##_bytes)

/// Names the line that launches in the emulator's messages.
struct Blocks {
  int64_t count;
  Site site;
  Blocks(int64_t n, Site at = Site::current()) : count(n), site(at) {}
};

template <class... P, class... A>
void launch(void (*kernel)(P...), const Grid& grid, A... args) {
  auto body = [&] { kernel(args...); };
  emulator::launch(
      {Dim(unsigned(grid.blocks)), Dim(unsigned(grid.threads)), unsigned(grid.cluster),
       size_t(grid.dynamic_bytes)},
      grid.site, [](void* context) { (*static_cast<decltype(body)*>(context))(); }, &body);
}
template <class... P, class... A>
void launch(void (*kernel)(P...), Blocks blocks, int threads, A... args) {
  launch(kernel, Grid(blocks.count, threads, 1, 0, blocks.site), args...);
}

template <class P>
FASTDL_DEVICE P load_once(const P* p) {
  return *p;
}
template <class P>
FASTDL_DEVICE void store_once(P* p, const P& value) {
  *p = value;
}

inline int64_t max_shared_bytes() { return int64_t(kSharedMemoryLimit); }
FASTDL_DEVICE int cluster_rank() { return int(running->rank); }
FASTDL_DEVICE void cluster_sync(Site site = Site::current()) { cluster_barrier(site); }
template <class T>
FASTDL_DEVICE T* of_rank(T* p, int rank, Site site = Site::current()) {
  return static_cast<T*>(shared_of_rank(p, unsigned(rank), site));
}

FASTDL_DEVICE int32_t exchange_if_zero(int32_t* p, int32_t to) { return *p ? *p : (*p = to, 0); }

FASTDL_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTDL_DEVICE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
FASTDL_DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
FASTDL_DEVICE double sqrt(double x) { return __builtin_sqrt(x); }
FASTDL_DEVICE double pow(double x, double y) { return __builtin_pow(x, y); }
FASTDL_DEVICE Bf16 nearest_bf16(float x) { return to_bf16(x); }

#endif

/// What an index may be.  A kernel asks before it uses one that the host has not seen, and reports
/// the first that is out of bounds; the call fails at the next synchronisation: see core/fault.h.
struct Bounds {
  Fault* fault;      // null on the host, where Op::validate has looked at the indices
  const char* text;  // of the host, where it is printed
  int64_t limit;

  FASTDL_DEVICE bool admit(int64_t index, int64_t element) const {
    const bool good = uint64_t(index) < uint64_t(limit);
    if (!good) report(index, element);
    return good;
  }
  FASTDL_DEVICE void report(int64_t value, int64_t element) const {
    if (!fault || exchange_if_zero(&fault->raised, 1)) return;
    fault->text = text, fault->limit = limit;
    fault->value = value, fault->element = element;
  }
};

constexpr unsigned kAllLanes = ~0u;
constexpr int kWarpSize = 32;

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
template <class T>
FASTDL_DEVICE BitsOf<T> bits_of(T x) {
  BitsOf<T> bits;
  memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class T>
FASTDL_DEVICE T from_bits(BitsOf<T> bits) {
  T x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
template <class I>
constexpr I min_of(I a, I b) {
  return a < b ? a : b;
}
template <class I>
constexpr I max_of(I a, I b) {
  return a > b ? a : b;
}

/// Calls f with a null T*: float or double, the dtype that all float arrays of a call share.
template <class F>
void with_real(DType dtype, F&& f) {
  if (dtype == DType::f32)
    f(static_cast<float*>(nullptr));
  else
    f(static_cast<double*>(nullptr));
}
/// The same for arrays of Kind::stored: float, double or Bf16.
template <class F>
void with_stored(DType dtype, F&& f) {
  dtype == DType::bf16 ? f(static_cast<Bf16*>(nullptr)) : with_real(dtype, f);
}

/// What a kernel computes in where arrays store S.
template <class S>
using Compute = std::conditional_t<std::is_same_v<S, Bf16>, float, S>;

template <class T>
FASTDL_DEVICE T widened(T x) {
  return x;
}
template <class S>
FASTDL_DEVICE S rounded(Compute<S> x) {
  if constexpr (std::is_same_v<S, Bf16>)
    return nearest_bf16(x);
  else
    return x;
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
