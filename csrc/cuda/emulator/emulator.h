#pragma once
// CUDA kernels on the host, so that they are tested where there is no GPU.
//
// Every CUDA thread is a fiber with a stack of its own; one operating-system thread runs them in
// turn, each until it waits for others.  Blocks run one after the other, in any order.  What the
// hardware leaves open the emulator makes visible:
//   order            FASTDL_CUEMU_SHUFFLE=seed draws the order of threads and blocks anew each time
//   shared memory    starts as NaN (all bits set), block by block; writes beside an array are found
//   barriers         threads that wait for ones that never come are reported, with the lines where
//                    they wait; so are threads that meet at different lines
//   shuffles         lanes that the mask leaves out hand over NaN
// All of these raise EmulatorError from the launch.  What it cannot show: races that leave the
// values right, memory order between blocks, speed, and the limits of registers.
//
// Not here yet: clusters (a launch would keep the blocks of a cluster alive together: see
// Machine::run_block) and asynchronous copies (a list of copies in each Fiber, done when waited
// for).
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
/// What a lane hands over in a shuffle.
struct alignas(16) Slot {
  unsigned char bytes[16];
};

/// What a running thread knows of itself.
struct Identity {
  Dim thread, block;
  unsigned number = 0, lane = 0;  // in the block, in the warp
};
struct Shape {
  Dim grid, block;
};
/// Of the thread that runs, and of its launch.
extern const Identity* running;
extern Shape launched;

/// Runs body(context) once for each thread of the grid.  `site` names the kernel in messages.
void launch(const Shape& shape, Site site, void (*body)(void*), void* context);

/// Until all threads of the block are here.
void block_barrier(Site site);
/// Until all lanes of `mask` are here; then slot i is what lane i gave.
const Slot* warp_exchange(uint32_t mask, const Slot& given, Site site);
/// The running block's array for `key`; the same for all its threads.
void* shared_array(const void* key, const char* name, size_t bytes, Site site);

}  // namespace fastdl::emulator
