#pragma once
// Devices besides the CPU: each has a runtime (core/runtime.h), opened when it is first asked for.
#include <string>

#include "core/contract.h"
#include "core/runtime.h"

namespace fastdl {

/// "cpu", "cuda", "cuda:0" or "cuemu"; throws std::invalid_argument.
Device device_named(const std::string& name);

/// The runtime of a device, ready for this thread.  Throws std::runtime_error that says what is
/// missing: the library, the driver or the GPU.
const Runtime& runtime_of(Device device);
/// Throws std::runtime_error unless `failure` is null.
void require(Device device, const char* what, Failure failure);
/// Throws std::runtime_error: a recording replays on the CPU.
[[noreturn]] void fail_recording(const char* op, Device device);
/// Waits for all work of the device.  Throws std::invalid_argument for what a kernel has reported.
void synchronize(Device device);

/// What there is of CUDA; opens the library.
struct CudaLibrary {
  const Runtime* runtime = nullptr;
  std::string path;
  std::string problem;  // why it is not open
};
const CudaLibrary& cuda_library();

/// Memory of a device; what is under way when it goes may still use it.
class DeviceMemory {
 public:
  DeviceMemory(Device device, const Runtime& runtime, int64_t bytes);
  ~DeviceMemory() {
    if (data_) runtime_.release(data_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  const Runtime& runtime_;
  void* data_ = nullptr;
};

}  // namespace fastdl
