#pragma once
// CUDA kernels on the host, so that they are tested where there is no GPU.
//
// Every CUDA thread is a fiber with a stack of its own; one operating-system thread runs them in
// turn, each until it waits for others.  The blocks of a cluster are there together, clusters and
// blocks without one come one after the other, in any order.  What the hardware leaves open the
// emulator makes visible:
//   order            FASTDL_CUEMU_SHUFFLE=seed draws the order of threads and blocks anew each
//                    time, and starts blocks of a cluster late
//   shared memory    starts as NaN (all bits set), block by block, is NaN again when its block has
//                    ended, and forgets what was written before it started; writes beside an array
//                    are found
//   barriers         threads that wait for ones that never come are reported, with the lines where
//                    they wait; so are threads that meet at different lines
//   shuffles         lanes that the mask leaves out hand over NaN
//   async copies     the destination is NaN until the copy is waited for
// All of these raise EmulatorError from the launch.  Races that leave the values right are seen
// under ThreadSanitizer (tsan.h).  What it cannot show: memory order between blocks without a
// cluster, speed, and the limits of registers.
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <stdexcept>

namespace fastdl::emulator {

/// A kernel broke a rule of the machine; the message names the kernel's lines and threads.
struct EmulatorError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Site = std::source_location;

struct Dim {
  unsigned x, y, z;
  constexpr Dim(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
      : x(width), y(height), z(depth) {}
  constexpr unsigned count() const { return x * y * z; }
};

constexpr unsigned kWarp = 32, kMaxThreads = 1024;
constexpr unsigned kMaxCluster = 8;                // blocks, on every device that has clusters
constexpr size_t kSharedMemoryLimit = 227 * 1024;  // bytes of a block on sm_90
/// What a lane hands over in a shuffle.
struct alignas(16) Slot {
  unsigned char bytes[16];
};

/// What a running thread knows of itself.
struct Identity {
  Dim thread, block;
  unsigned number = 0, lane = 0;  // in the block, in the warp
  unsigned rank = 0;              // of the block in its cluster
};
struct Shape {
  Dim grid, block;
  unsigned cluster = 1;      // blocks of a cluster
  size_t dynamic_bytes = 0;  // of shared memory, beside the arrays that kernels name
};
/// Of the thread that runs, and of its launch.
extern const Identity* running;
extern Shape launched;

/// Runs body(context) once for each thread of the grid.  `site` names the kernel in messages.
void launch(const Shape& shape, Site site, void (*body)(void*), void* context);
/// Blocks of a cluster at most; FASTDL_CUEMU_MAX_CLUSTER=1 is a device without clusters.
int max_cluster();

/// Until all threads of the block, or of the cluster, are here.
void block_barrier(Site site);
void cluster_barrier(Site site);
/// Until all lanes of `mask` are here; then slot i is what lane i gave.  What the lanes have written
/// to memory is seen by the others only if it `orders_memory`.
const Slot* warp_exchange(uint32_t mask, const Slot& given, bool orders_memory, Site site);
/// The running block's array for `key`; the same for all its threads.
void* shared_array(const void* key, const char* name, size_t bytes, Site site);
/// Where the array element at `p` of the running block lies in block `rank` of the cluster.
void* shared_of_rank(const void* p, unsigned rank, Site site);

/// A copy to shared memory, of 4, 8 or 16 bytes, that is done when its group is waited for.
void copy_async(void* to, const void* from, size_t bytes, Site site);
void commit_copies();
/// For all groups of the thread but the `prior` latest.
void wait_for_copies(size_t prior);

}  // namespace fastdl::emulator
