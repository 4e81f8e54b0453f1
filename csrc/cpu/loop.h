#pragma once
// How kernels walk over memory and share work.
#include "core/op.h"
#include "core/parallel.h"
#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Runs body(chunk, worker) for each chunk, on several threads if `work` (bytes moved, or flop / 4)
/// is worth it.  Chunks depend on shapes alone.
template <class F>
FASTDL_INLINE void parallel_for(int64_t chunks, int64_t work, F&& body) {
  using Body = std::remove_reference_t<F>;
  run_chunks(
      chunks, work,
      [](void* context, int64_t chunk, int worker) {
        (*static_cast<Body*>(context))(chunk, worker);
      },
      &body);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

/// Elements per chunk of a flat loop: 64 KiB of f32, a multiple of every vector width.
constexpr int64_t kFlatChunk = 16 * 1024;

/// Runs body(first, last) over [0, n) in chunks; `bytes` is the traffic of one element.
template <class F>
FASTDL_INLINE void parallel_range(int64_t n, int64_t bytes, F&& body) {
  parallel_for(ceil_div(n, kFlatChunk), n * bytes, [&](int64_t chunk, int) {
    body(chunk * kFlatChunk, min_of(n, (chunk + 1) * kFlatChunk));
  });
}

/// Calls body(i, lanes) over [first, last) in steps of a vector; lanes < kLanes<T> only at the end.
template <class T, class F>
FASTDL_INLINE void for_each_vector(int64_t first, int64_t last, F&& body) {
  int64_t i = first;
  for (; i + kLanes<T> <= last; i += kLanes<T>) body(i, int64_t{kLanes<T>});
  if (i < last) body(i, last - i);
}

/// Calls f with a null T*: float or double, the dtype that all float arrays of a call share.
template <class F>
FASTDL_INLINE void with_real(DType dtype, F&& f) {
  if (dtype == DType::f32)
    f(static_cast<float*>(nullptr));
  else
    f(static_cast<double*>(nullptr));
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
