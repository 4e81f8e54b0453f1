// The runtime of the emulated device: see core/runtime.h.  Everything is done when a call returns.
#include "core/runtime.h"

#include <unistd.h>

#include <cstring>
#include <new>

#include "cuda/emulator/device_memory.h"

namespace fastdl {
namespace cuemu {
extern const Backend table;
}

namespace emulator {

extern const Runtime runtime;

namespace {

Fault* fault() {
  static Fault* f = [] {
    void* p = allocate_memory(sizeof(Fault));
    const DeviceAccess access;
    return static_cast<Fault*>(std::memset(p, 0, sizeof(Fault)));
  }();
  return f;
}

DeviceStatus status() { return {0, 0, 1, nullptr}; }

Failure properties(int, DeviceProperties* p) {
  *p = {"emulator", 0, 0, 1, sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)};
  return nullptr;
}

Failure enter() { return nullptr; }

Failure allocate(void** p, int64_t bytes) {
  *p = allocate_memory(bytes ? bytes : 1);
  return *p ? nullptr : "out of memory";
}
constexpr std::align_val_t kPinnedAlignment{4096};
Failure allocate_pinned(void** p, int64_t bytes) {
  *p = ::operator new(size_t(bytes), kPinnedAlignment, std::nothrow);
  return *p ? nullptr : "out of memory";
}
void release_pinned(void* p) { ::operator delete(p, kPinnedAlignment); }

Failure copy(void* to, const void* from, int64_t bytes, Direction) {
  const DeviceAccess access;
  std::memcpy(to, from, size_t(bytes));
  return nullptr;
}

Failure synchronize(Fault* found) {
  if (!found) return nullptr;
  const DeviceAccess access;
  *found = *fault();
  *fault() = {};
  return stray_write();
}

Stream stream() { return 1; }  // the number of a default stream: no pointer
Failure order(Stream, Stream) { return nullptr; }

}  // namespace

const Runtime runtime = {
    .abi = runtime_abi(),
    .kernels = &cuemu::table,
    .architectures = "host",
    .status = status,
    .properties = properties,
    .enter = enter,
    .allocate = allocate,
    .release = release_memory,
    .allocate_pinned = allocate_pinned,
    .release_pinned = release_pinned,
    .owns = owns_memory,
    .copy = copy,
    .synchronize = synchronize,
    .fault = fault,
    .stream = stream,
    .order = order,
};

}  // namespace emulator
}  // namespace fastdl
