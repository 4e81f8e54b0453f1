#pragma once
// Non-temporal stores: for outputs too large for the cache they save the read of every line before
// it is written, a third of the traffic of a copy.  From which size on: core/cache.h.  And `fetch`, for
// what the hardware does not foresee.
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

/// Fetches n elements that are needed soon.
template <class T>
FASTDL_INLINE void fetch(const T* x, int64_t n) {
  for (int64_t line = 0; line < n * int64_t(sizeof(T)); line += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(x) + line, 0, 2);
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

/// Rows of n elements, y_i[j] = f(i, j, count), ld apart, by non-temporal stores.  Where rows follow
/// each other, the line in which one ends and the next begins is put together and streamed as well:
/// two stores of parts of it would wait for it to be read.
template <class T, class F>
FASTDL_INLINE void stream_rows(T* y, int64_t rows, int64_t n, int64_t ld, F&& f) {
  constexpr int64_t L = kLanes<T>;
  T line[L];
  int64_t held = 0;  // elements of the row before that wait in `line`
  for (int64_t i = 0; i < rows; ++i) {
    T* const row = y + i * ld;
    int64_t j = elements_to_alignment(row, n);
    if (held) {
      store(line + held, f(i, int64_t{0}, j), j);
      stream(row - held, load(line));
    } else if (j) {
      store(row, f(i, int64_t{0}, j), j);
    }
    for (; j + L <= n; j += L) stream(row + j, f(i, j, L));
    held = ld == n && n >= L && i + 1 < rows ? n - j : 0;
    if (j < n) store(held ? line : row + j, f(i, j, n - j), n - j);
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
