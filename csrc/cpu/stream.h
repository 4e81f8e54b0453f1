#pragma once
// Non-temporal stores: for outputs too large for the cache they save the read of every line before
// it is written, a third of the traffic of a copy.  From which size on: core/cache.h.
#include "core/cache.h"
#include "cpu/loop.h"
#include "cpu/simd.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// p must be aligned to the vector.
template <class T>
FASTDL_INLINE void stream(T* p, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__x86_64__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}

/// Orders streamed stores before what follows; once per chunk, before another thread may look.
FASTDL_INLINE void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

/// Elements before the first vector-aligned address at or after p, at most n.
template <class T>
FASTDL_INLINE int64_t elements_to_alignment(const T* p, int64_t n) {
  const uint64_t past = reinterpret_cast<uintptr_t>(p) % kVectorBytes;
  return past ? min_of(n, int64_t(kVectorBytes - past) / int64_t(sizeof(T))) : 0;
}

/// y[j] = f(j, count) for j in [0, n), by vectors; with Stream by non-temporal stores.
template <bool Stream, class T, class F>
FASTDL_INLINE void write_row(T* y, int64_t n, F&& f) {
  int64_t j = 0;
  if constexpr (Stream) {
    j = elements_to_alignment(y, n);
    if (j) store(y, f(int64_t{0}, j), j);
    for (; j + kLanes<T> <= n; j += kLanes<T>) stream(y + j, f(j, int64_t{kLanes<T>}));
  }
  for_each_vector<T>(j, n, [&](int64_t i, int64_t count) { store(y + i, f(i, count), count); });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
