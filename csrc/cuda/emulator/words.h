#pragma once
// The vocabulary of CUDA C++ for the host compiler: as much of it as the kernels use.
#include <cstring>

#include "cuda/emulator/emulator.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::fastdl::emulator::running->thread)
#define blockIdx (::fastdl::emulator::running->block)
#define blockDim (::fastdl::emulator::launched.block)
#define gridDim (::fastdl::emulator::launched.grid)

namespace fastdl::emulator {
namespace {

inline void __syncthreads(Site site = Site::current()) { block_barrier(site); }

template <class T>
inline Slot slot_of(const T& value) {
  static_assert(sizeof(T) <= sizeof(Slot));
  Slot slot;
  std::memset(&slot, 0xFF, sizeof slot);
  std::memcpy(&slot, &value, sizeof value);
  return slot;
}
template <class T>
inline T value_of(const Slot& slot) {
  T value;
  std::memcpy(&value, &slot, sizeof value);
  return value;
}

inline void __syncwarp(unsigned mask = ~0u, Site site = Site::current()) {
  warp_exchange(mask, Slot{}, true, site);
}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, Site site = Site::current()) {
  return value_of<T>(warp_exchange(mask, slot_of(value), false, site)[lane & 31]);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, Site site = Site::current()) {
  const unsigned lane = running->lane ^ unsigned(bits);
  return value_of<T>(warp_exchange(mask, slot_of(value), false, site)[lane & 31]);
}
/// Lanes without a partner keep their own value, as in hardware.
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, Site site = Site::current()) {
  const Slot* slots = warp_exchange(mask, slot_of(value), false, site);
  const unsigned lane = running->lane + by;
  return lane < kWarp ? value_of<T>(slots[lane]) : value;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Site site = Site::current()) {
  const Slot* slots = warp_exchange(mask, slot_of(predicate != 0), false, site);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1 && value_of<bool>(slots[lane])) votes |= 1u << lane;
  return votes;
}

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes,
                                    Site site = Site::current()) {
  copy_async(to, from, bytes, site);
}
inline void __pipeline_commit() { commit_copies(); }
inline void __pipeline_wait_prior(size_t groups) { wait_for_copies(groups); }

}  // namespace
}  // namespace fastdl::emulator
