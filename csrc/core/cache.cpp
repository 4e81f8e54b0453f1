#include "core/cache.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

namespace fastdl {
namespace {

int64_t default_stream_bytes() {
  int64_t cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = sysconf(_SC_LEVEL3_CACHE_SIZE);  // 0 or -1 where it is not known
#endif
  return std::clamp(cache / 8, int64_t{16} << 20, int64_t{64} << 20);
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
