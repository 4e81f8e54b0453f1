// What this machine can do at best: multiply-adds in registers, memory traffic, starting a thread.
//
// Compiled once per instruction set by ceilings.py, with -DBYTES= the width of a vector.  Rates are
// those of all threads together, by the slowest of them; the caller repeats and keeps the best.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

template <class T>
struct Vector {
  typedef T type __attribute__((vector_size(BYTES)));
};
using V = Vector<float>::type;
constexpr long kLanes = BYTES / 4;

double now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(t).count();
}

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

/// Seconds that the slowest of the threads needs for work(thread), all started together.
template <class Work>
double together(int threads, Work work) {
  std::atomic<int> ready{0};
  std::vector<double> took(threads);
  auto body = [&](int t) {
    ready.fetch_add(1);
    while (ready.load() < threads) relax();
    const double start = now();
    work(t);
    took[t] = now() - start;
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (auto& other : others) other.join();
  return *std::max_element(took.begin(), took.end());
}

// ---- multiply-adds -----------------------------------------------------------------------------

/// Twelve independent chains: two units with a latency of 4 cycles need 8, AVX2 has 16 registers.
template <class V, class Step>
V chains(long n, V x, V y, Step step) {
  V a = y, b = y + x, c = b + x, d = c + x, e = d + x, f = e + x;
  V g = f + x, h = g + x, i = h + x, j = i + x, k = j + x, l = k + x;
  for (; n > 0; --n) {
    a = step(a, x, y), b = step(b, x, y), c = step(c, x, y), d = step(d, x, y);
    e = step(e, x, y), f = step(f, x, y), g = step(g, x, y), h = step(h, x, y);
    i = step(i, x, y), j = step(j, x, y), k = step(k, x, y), l = step(l, x, y);
    asm volatile("" : "+m"(n));  // one iteration stays one iteration
  }
  return a + b + c + d + e + f + g + h + i + j + k + l;
}

volatile double sink;

/// y / (1 - x) is where every chain ends: neither overflow nor denormal numbers on the way.  The
/// compiler must not know x and y: the chain that starts there would be a constant to it, and eleven
/// of twelve would run.
template <class T>
void multiply_add(long n) {
  using Vec = typename Vector<T>::type;
  volatile T factor = T(0.999), addend = T(0.001);
  const Vec x = Vec{} + factor, y = Vec{} + addend;
  sink = double(chains(n, x, y, [](Vec a, Vec x, Vec y) { return a * x + y; })[0]);
}

#if defined(__AVX512BF16__)
void multiply_add_bf16(long n) {
  const auto dot = [](V a, V x, V y) {
    return V(_mm512_dpbf16_ps(__m512(a), (__m512bh)(x), (__m512bh)(y)));
  };
  sink = chains(n, V{} + 0.001f, V{} + 0.001f, dot)[0];
}
#endif

// ---- memory ------------------------------------------------------------------------------------

enum Kind { kRead, kCopy, kCopyNt, kScale, kAdam };
constexpr int kArrays[] = {1, 2, 2, 1, 4};
constexpr int kBytesPerElement[] = {4, 8, 8, 8, 28};

void store_past_cache(V* to, V value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(reinterpret_cast<float*>(to), __m512(value));
#elif defined(__AVX__)
  _mm256_stream_ps(reinterpret_cast<float*>(to), __m256(value));
#elif defined(__x86_64__)
  _mm_stream_ps(reinterpret_cast<float*>(to), __m128(value));
#else
  *to = value;
#endif
}

void read(const V* x, long n) {
  V s[8] = {};
  for (long i = 0; i + 8 <= n; i += 8) {
    for (int u = 0; u < 8; ++u) s[u] += x[i + u];
  }
  sink = (s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7])[0];
}

void copy(const V* x, V* y, long n) {
  for (long i = 0; i + 4 <= n; i += 4) {
    for (int u = 0; u < 4; ++u) y[i + u] = x[i + u];
    asm volatile("" ::: "memory");  // keeps the compiler from calling memcpy
  }
}

void copy_nt(const V* x, V* y, long n) {
  for (long i = 0; i + 4 <= n; i += 4) {
    for (int u = 0; u < 4; ++u) store_past_cache(y + i + u, x[i + u]);
  }
}

void scale(V* x, long n) {
  for (long i = 0; i + 4 <= n; i += 4) {
    for (int u = 0; u < 4; ++u) x[i + u] *= 0.999f;
  }
}

/// The traffic of Adam, four arrays read and three written, with little arithmetic.
void adam(V* theta, const V* g, V* m1, V* m2, long n) {
  for (long i = 0; i < n; ++i) {
    m1[i] = m1[i] * 0.9f + g[i];
    m2[i] = m2[i] * 0.9f + g[i];
    theta[i] = theta[i] + m1[i] * m2[i];
  }
}

/// Between the arrays of a pass.  At distances of a power of two all would lie in the same banks of
/// memory, at whole pages in the same sets of a cache: the traffic of Adam falls to a third.
constexpr long kApartBytes = 5 * 4096 + 512;

void pass(int kind, V* a, long n) {
  V* const b = a + n + kApartBytes / BYTES;
  V* const c = b + (b - a);
  V* const d = c + (b - a);
  switch (kind) {
    case kRead:
      return read(a, n);
    case kCopy:
      return copy(a, b, n);
    case kCopyNt:
      return copy_nt(a, b, n);
    case kScale:
      return scale(a, n);
    case kAdam:
      return adam(a, b, c, d, n);
  }
}

/// Memory in huge pages where the system gives them, written once.
char* buffer(size_t bytes) {
  static char* memory = nullptr;
  static size_t size = 0;
  if (bytes > size) {
    std::free(memory);
    constexpr size_t kHuge = size_t(2) << 20;
    size = (bytes + kHuge - 1) / kHuge * kHuge;
    memory = static_cast<char*>(std::aligned_alloc(kHuge, size));
#if defined(MADV_HUGEPAGE)
    if (memory) madvise(memory, size, MADV_HUGEPAGE);
#endif
    if (memory) std::memset(memory, 0, size);
    if (!memory) size = 0;
  }
  return memory;
}

}  // namespace

extern "C" {

/// Multiply-adds of `bits` wide numbers: flop per second.
double ceiling_fma(int bits, int threads, long n) {
  double lanes = BYTES * 8.0 / bits;
  void (*work)(long) = bits == 64 ? multiply_add<double> : multiply_add<float>;
#if defined(__AVX512BF16__)
  if (bits == 16) work = multiply_add_bf16;
#endif
  if (bits == 16 && work == multiply_add<float>) return 0;
  const double seconds = together(threads, [&](int) { work(n); });
  return 2.0 * 12.0 * lanes * double(n) * threads / seconds;
}

/// Bytes per second of a kind of traffic over `bytes` of arrays in all, `passes` times.
double ceiling_bandwidth(int kind, size_t bytes, int threads, long passes) {
  const long per_array = long(bytes) / threads / kArrays[kind] / BYTES / 8 * 8;
  const long stride = kArrays[kind] * (per_array + kApartBytes / BYTES);  // of a thread
  V* memory = reinterpret_cast<V*>(buffer(size_t(stride) * BYTES * threads));
  if (!memory || per_array == 0) return 0;
  const double seconds = together(threads, [&](int t) {
    for (long p = 0; p < passes; ++p) {
      pass(kind, memory + t * stride, per_array);
      asm volatile("" ::: "memory");
    }
  });
  return double(per_array) * kLanes * kBytesPerElement[kind] * passes * threads / seconds;
}

/// Seconds from starting work on a spinning second thread to knowing that it is done, the lower
/// decile; stops early where another process holds one of the two up.
double ceiling_fork_join(int times, double limit_seconds) {
  std::atomic<int> asked{0}, done{0};
  std::thread other([&] {
    for (int i = 0; i >= 0; i = asked.load(std::memory_order_acquire)) {
      done.store(i, std::memory_order_release);
      relax();
    }
  });
  std::vector<double> took;
  const double stop = now() + limit_seconds;
  for (int i = 1; i <= times && (took.empty() || now() < stop); ++i) {
    const double start = now();
    asked.store(i, std::memory_order_release);
    while (done.load(std::memory_order_acquire) < i) relax();
    took.push_back(now() - start);
  }
  asked.store(-1, std::memory_order_release);
  other.join();
  const auto decile = took.begin() + took.size() / 10;
  std::nth_element(took.begin(), decile, took.end());
  return *decile;
}
}
