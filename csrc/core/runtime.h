#pragma once
// What a device does besides running kernels: memory, copies and their order.  A table of plain
// functions, like that of the kernels.  One is in libfastdl_cuda.so (cuda/runtime.cpp), which is
// opened when a CUDA device is asked for; the other is the emulator's, in host memory.
//
// A process works on one device by one stream.  All work happens in the order of the calls,
// whichever thread makes them, so released memory is free at once for what comes next.
#include <cstdint>
#include <string_view>

#include "core/backend.h"
#include "core/fault.h"
#include "ops.def"

namespace fastdl {

/// Null for success, else what went wrong: a text that stays valid.
using Failure = const char*;

struct DeviceProperties {
  char name[256];
  int major, minor, multiprocessors;
  int64_t memory_bytes;
};

struct DeviceStatus {
  int driver, toolkit;  // newest CUDA that the driver runs, and that of the build: 13020 is 13.2;
                        // 0: there is no driver
  int devices;
  Failure problem;  // why none of them can be used
};

enum class Direction { to_device, to_host, on_device };

/// A stream of the driver as a number, as DLPack and __cuda_array_interface__ hand them around.
using Stream = uintptr_t;

struct Runtime {
  uint64_t abi;
  const Backend* kernels;
  const char* architectures;  // "80-real 90-real 120"

  DeviceStatus (*status)();
  Failure (*properties)(int device, DeviceProperties*);
  /// Before every use by a thread: prepares the device once, and makes it the thread's own.
  Failure (*enter)();

  /// At least one byte, aligned to 256.
  Failure (*allocate)(void**, int64_t bytes);
  void (*release)(void*);
  /// Memory of the host that copies run at full speed from and to.
  Failure (*allocate_pinned)(void**, int64_t bytes);
  void (*release_pinned)(void*);
  /// Whether the pointer is one to the device's memory.
  bool (*owns)(const void*);

  /// Host memory may be changed or freed when this returns, except after `to_host` and from pinned
  /// memory: then after `synchronize`.
  Failure (*copy)(void* to, const void* from, int64_t bytes, Direction direction);
  /// Waits for everything.  What kernels have reported is handed out and forgotten, or with null
  /// kept for the next call.
  Failure (*synchronize)(Fault*);
  Fault* (*fault)();  // in the device's memory, where kernels report
  Stream (*stream)();
  /// What is put into `after` from now on waits for what `before` holds.
  Failure (*order)(Stream before, Stream after);
};

/// A number that differs where the layout of the tables or of any op does: the library and _core
/// must be of one build.
constexpr uint64_t runtime_abi() {
  uint64_t hash = 14695981039346656037u;
  const auto mix = [&hash](uint64_t x) { hash = (hash ^ x) * 1099511628211u; };
  mix(sizeof(Runtime)), mix(sizeof(Backend)), mix(sizeof(Workspace)), mix(sizeof(Fault));
#define FASTDL_OP(Op, op)                               \
  for (char c : std::string_view(#op)) mix(uint8_t(c)); \
  mix(sizeof(Op));
#include "ops.def"
#undef FASTDL_OP
  return hash;
}

}  // namespace fastdl
