#include "core/cache.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace fastdl {
namespace {

/// The last-level cache that this CPU shares with its neighbours; 0 where that is not known.  First
/// what Linux says of CPU 0: on processors with several such caches sysconf gives their sum, or more.
int64_t last_level_cache_bytes() {
  int64_t kib = 0;
  if (std::FILE* f = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
    if (std::fscanf(f, "%" SCNd64 "K", &kib) != 1) kib = 0;
    std::fclose(f);
  }
  if (kib > 0) return kib << 10;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  return sysconf(_SC_LEVEL3_CACHE_SIZE);  // or -1
#else
  return 0;
#endif
}

int64_t default_stream_bytes() {
  return std::clamp(last_level_cache_bytes() / 8, int64_t{16} << 20, int64_t{64} << 20);
}

std::atomic<int64_t> bytes{default_stream_bytes()};

}  // namespace

int64_t stream_bytes() { return bytes.load(std::memory_order_relaxed); }

void set_stream_bytes(int64_t n_bytes) {
  if (n_bytes < 1)
    throw std::invalid_argument("set_stream_bytes: n must be at least 1 byte, got " +
                                std::to_string(n_bytes));
  bytes.store(n_bytes, std::memory_order_relaxed);
}

}  // namespace fastdl
