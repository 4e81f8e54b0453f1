#pragma once
// All that kernels need from the machine, in the words of CUDA C++.  nvcc compiles them for the
// device; the host compiler compiles the same files for the emulator (cuda/emulator/emulator.h).
//
// Rules for kernels, which keep both sides and the bits alike:
// - launch() instead of <<< >>>, FASTDL_SHARED instead of __shared__, no inline assembly elsewhere
// - grids and block sizes by shape alone, never by the number of multiprocessors; no float atomics
// - no contraction: fma where the source says so; quotients and roots are rounded correctly
// - a kernel gets pointers and numbers; what changes from step to step it reads from memory
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/op.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <source_location>
#include <stdexcept>
#include <string>
#else
#include "cuda/emulator/words.h"
#endif

namespace fastdl::FASTDL_ISA {
namespace {

#if defined(__CUDACC__)

#define FASTDL_DEVICE __device__ __forceinline__
/// A pointer `name` to n elements that the threads of a block share.
#define FASTDL_SHARED(T, name, n) \
  __shared__ T name##_array[n];   \
  T* const name = name##_array

/// Starts kernel(args...) with `blocks` blocks of `threads` threads.
template <class... P, class... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, A... args) {
  kernel<<<unsigned(blocks), unsigned(threads)>>>(args...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

FASTDL_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FASTDL_DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
FASTDL_DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
FASTDL_DEVICE double sqrt(double x) { return __dsqrt_rn(x); }
FASTDL_DEVICE double pow(double x, double y) { return ::pow(x, y); }

#else

using namespace emulator;

#define FASTDL_DEVICE inline __attribute__((always_inline))
#define FASTDL_SHARED(T, name, n)                                   \
  static const char name##_key = 0;                                 \
  T* const name = static_cast<T*>(::fastdl::emulator::shared_array( \
      &name##_key, #name, sizeof(T) * (n), ::fastdl::emulator::Site::current()))

/// Names the line that launches in the emulator's messages.
struct Blocks {
  int64_t count;
  Site site;
  Blocks(int64_t n, Site at = Site::current()) : count(n), site(at) {}
};

template <class... P, class... A>
void launch(void (*kernel)(P...), Blocks blocks, int threads, A... args) {
  auto body = [&] { kernel(args...); };
  emulator::launch(
      {Dim(unsigned(blocks.count)), Dim(unsigned(threads))}, blocks.site,
      [](void* context) { (*static_cast<decltype(body)*>(context))(); }, &body);
}

FASTDL_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTDL_DEVICE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
FASTDL_DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
FASTDL_DEVICE double sqrt(double x) { return __builtin_sqrt(x); }
FASTDL_DEVICE double pow(double x, double y) { return __builtin_pow(x, y); }

#endif

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

}  // namespace
}  // namespace fastdl::FASTDL_ISA
