#include "core/device.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace fastdl {
namespace emulator {
extern const Runtime runtime;
}
namespace {

/// The folder of _core, with a slash.
std::string own_folder() {
  Dl_info info;
  static const char here = 0;
  if (!dladdr(&here, &info) || !info.dli_fname) return "";
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

CudaLibrary open_cuda() {
  CudaLibrary library;
  const char* elsewhere = std::getenv("FASTDL_CUDA_LIBRARY");
  library.path = elsewhere && *elsewhere ? elsewhere : own_folder() + "libfastdl_cuda.so";
  void* handle = dlopen(library.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    library.problem = std::string("this build has no CUDA kernels (") + dlerror() +
                      "); build fastdl where nvcc is on PATH";
    return library;
  }
  using Door = const Runtime* (*)(uint64_t abi);
  const auto door = reinterpret_cast<Door>(dlsym(handle, "fastdl_cuda_runtime"));
  library.runtime = door ? door(runtime_abi()) : nullptr;
  if (!library.runtime)
    library.problem = library.path + " is of another build than _core; install fastdl anew";
  return library;
}

const Runtime& cuda_runtime() {
  const CudaLibrary& library = cuda_library();
  if (!library.runtime) throw std::runtime_error("cuda: " + library.problem);
  return *library.runtime;
}

const Runtime& emulator_runtime() {
#if defined(FASTDL_CUEMU)
  return emulator::runtime;
#else
  throw std::runtime_error("cuemu: this build has no emulator; configure with FASTDL_CUEMU=ON");
#endif
}

}  // namespace

Device device_named(const std::string& name) {
  if (name == "cpu") return Device::cpu;
  if (name == "cuda" || name == "cuda:0") return Device::cuda;
  if (name == "cuemu") return Device::cuemu;
  if (name.rfind("cuda:", 0) == 0)
    throw std::invalid_argument(
        "device: a process works on the first GPU of CUDA_VISIBLE_DEVICES, 'cuda' or 'cuda:0', got "
        "'" +
        name + "'");
  throw std::invalid_argument("device: must be 'cpu' or 'cuda', got '" + name + "'");
}

const CudaLibrary& cuda_library() {
  static const CudaLibrary library = open_cuda();
  return library;
}

const Runtime& runtime_of(Device device) {
  const Runtime& runtime = device == Device::cuda ? cuda_runtime() : emulator_runtime();
  require(device, "cannot be used", runtime.enter());
  return runtime;
}

void require(Device device, const char* what, Failure failure) {
  if (failure)
    throw std::runtime_error(std::string(to_string(device)) + ": " + what + ": " + failure);
}

void fail_recording(const char* op, Device device) {
  throw std::runtime_error(std::string(op) +
                           ": arguments must be on cpu while a step is recorded, " + "got " +
                           to_string(device) + "; run the step without capture");
}

void synchronize(Device device) {
  Fault fault{};
  require(device, "an earlier call failed", runtime_of(device).synchronize(&fault));
  if (!fault.raised) return;
  char text[512];
  std::snprintf(text, sizeof text, fault.text, static_cast<long long>(fault.value),
                static_cast<long long>(fault.limit), static_cast<long long>(fault.element));
  throw std::invalid_argument(std::string(text) + "; found on the device, after the call");
}

DeviceMemory::DeviceMemory(Device device, const Runtime& runtime, int64_t bytes)
    : runtime_(runtime) {
  if (bytes == 0) return;
  const Failure failure = runtime.allocate(&data_, bytes);
  if (!failure) return;
  const std::string what = "cannot allocate " + std::to_string(bytes) + " bytes";
  require(device, what.c_str(), failure);
}

}  // namespace fastdl
