#pragma once
// Memory of large arrays, kept when an array dies for the next one of about its size.
//
// A fresh page costs a fault, and the system writes zeros to it first: of 33 MB that takes 9 ms, three
// times what a kernel takes to fill them.  The C library keeps no block above 32 MiB.
//
// A block starts at a line of the cache, and blocks start at different places of a page: arrays that
// are read and written together would meet in the same sets of the caches.
#include <cstdint>

namespace fastdl {

/// Arrays from this size on are worth a block: a fault for each page, lines that no two arrays share.
constexpr int64_t kPooledBytes = 256 * 1024;

/// At least `bytes` of uninitialised memory; null if there is none.
void* take_block(int64_t bytes);
/// Hands a block back; any thread may, in a child process too.
void give_block(void* block) noexcept;

/// The most that blocks without an array may hold: FASTDL_POOL_BYTES, else 1 GiB or, if that is less,
/// a quarter of the memory that the machine or the process's cgroup has.  What was handed back
/// longest ago goes first.
int64_t pool_bytes();
void set_pool_bytes(int64_t n_bytes);
/// What they hold now.
int64_t pooled_bytes();
/// Returns all of it to the system.
void empty_pool();

}  // namespace fastdl
