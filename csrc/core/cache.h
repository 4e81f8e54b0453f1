#pragma once
#include <cstdint>

namespace fastdl {

/// Outputs from this size on are written past the caches: an eighth of the last-level cache, for
/// others share it and inputs want to stay too, but at least 16 and at most 64 MiB.
int64_t stream_bytes();
/// Tests lower it to see streamed stores on small arrays.
void set_stream_bytes(int64_t n_bytes);

}  // namespace fastdl
