#pragma once
// The memory of the emulated device, which makes visible what a device would hide:
// - an allocation ends its pages, and an inaccessible page follows: a step beyond it stops the
//   process; what was written before it or into its padding is found when it is released
// - fresh memory is NaN (all bits set), released memory stays inaccessible until it is used again
// - the host cannot touch it: its pages are accessible to kernels and copies alone
#include <cstdint>

namespace fastdl::emulator {

/// Null if there is no more.
void* allocate_memory(int64_t bytes);
void release_memory(void* first);
bool owns_memory(const void* p);
/// What was written beside allocations that have been released since the last call, or null.
const char* stray_write();

/// While one is alive, the memory is accessible.
struct DeviceAccess {
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
};

}  // namespace fastdl::emulator
