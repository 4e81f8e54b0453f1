// The runtime of a CUDA device: see core/runtime.h.  Linked with the static runtime library of CUDA,
// which finds the driver when it is first called.
#include "core/runtime.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#include "cuda/stream.h"

namespace fastdl::cuda {

extern const Backend table;
cudaStream_t stream;

namespace {

constexpr int kDevice = 0;  // of those that CUDA_VISIBLE_DEVICES leaves

cudaMemPool_t pool;
Fault *fault, *landing;  // on the device; pinned, where it is copied to when it is asked for

Failure failure(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

/// Calls each, until one fails.
template <class... F>
Failure first_failure(F... calls) {
  cudaError_t error = cudaSuccess;
  (void)((error = calls(), error == cudaSuccess) && ...);
  return failure(error);
}

DeviceStatus status() {
  DeviceStatus s{0, CUDART_VERSION, 0, nullptr};
  s.problem = failure(cudaDriverGetVersion(&s.driver));
  if (!s.problem && s.driver == 0) s.problem = "there is no NVIDIA driver on this machine";
  if (s.problem) return s;
  const cudaError_t error = cudaGetDeviceCount(&s.devices);
  if (error == cudaErrorInsufficientDriver) {
    static char text[128];
    std::snprintf(text, sizeof text, "the NVIDIA driver runs CUDA up to %d.%d, needed is %d.%d",
                  s.driver / 1000, s.driver % 1000 / 10, s.toolkit / 1000, s.toolkit % 1000 / 10);
    s.problem = text;
  } else if (error == cudaErrorNoDevice || (error == cudaSuccess && s.devices == 0)) {
    s.problem = "the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?)";
  } else {
    s.problem = failure(error);
  }
  return s;
}

Failure properties(int device, DeviceProperties* out) {
  cudaDeviceProp p;
  if (Failure f = failure(cudaGetDeviceProperties(&p, device))) return f;
  std::snprintf(out->name, sizeof out->name, "%s", p.name);
  out->major = p.major, out->minor = p.minor, out->multiprocessors = p.multiProcessorCount;
  out->memory_bytes = int64_t(p.totalGlobalMem);
  return nullptr;
}

/// A pool of our own keeps what is released, and leaves the default pool to others.
cudaError_t make_pool() {
  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;
  props.location = {cudaMemLocationTypeDevice, {kDevice}};
  if (const cudaError_t error = cudaMemPoolCreate(&pool, &props)) return error;
  uint64_t keep = UINT64_MAX;
  return cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
}

Failure start() {
  const auto s = status();
  if (s.problem) return s.problem;
  return first_failure(
      [] { return cudaSetDevice(kDevice); },
      [] { return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }, make_pool,
      [] { return cudaMalloc(reinterpret_cast<void**>(&fault), sizeof(Fault)); },
      [] { return cudaMemset(fault, 0, sizeof(Fault)); },
      [] { return cudaMallocHost(reinterpret_cast<void**>(&landing), sizeof(Fault)); });
}

Failure enter() {
  static const Failure started = start();
  return started ? started : failure(cudaSetDevice(kDevice));
}

Failure allocate(void** p, int64_t bytes) {
  return failure(cudaMallocFromPoolAsync(p, size_t(bytes ? bytes : 1), pool, stream));
}
// Failures to release are those of a driver that has shut down with the process.
void release(void* p) {
  if (!enter()) (void)cudaFreeAsync(p, stream);
}

Failure allocate_pinned(void** p, int64_t bytes) {
  return failure(cudaMallocHost(p, size_t(bytes ? bytes : 1)));
}
void release_pinned(void* p) {
  (void)cudaStreamSynchronize(stream);  // a copy may still read it
  (void)cudaFreeHost(p);
}

bool owns(const void* p) {
  cudaPointerAttributes a;
  if (cudaPointerGetAttributes(&a, p) != cudaSuccess) return (void)cudaGetLastError(), false;
  const bool device = a.type == cudaMemoryTypeDevice || a.type == cudaMemoryTypeManaged;
  return device && a.device == kDevice;
}

Failure copy(void* to, const void* from, int64_t bytes, Direction direction) {
  static constexpr cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                             cudaMemcpyDeviceToDevice};
  return failure(cudaMemcpyAsync(to, from, size_t(bytes), kinds[int(direction)], stream));
}

Failure synchronize(Fault* found) {
  if (!found) return failure(cudaStreamSynchronize(stream));
  static std::mutex one;  // `landing` serves one at a time
  const std::lock_guard lock(one);
  const Failure f = first_failure(
      [] {
        return cudaMemcpyAsync(landing, fault, sizeof *landing, cudaMemcpyDeviceToHost, stream);
      },
      [] { return cudaStreamSynchronize(stream); });
  if (f) return f;
  *found = *landing;
  if (!landing->raised) return nullptr;
  return failure(cudaMemsetAsync(fault, 0, sizeof(Fault), stream));
}

Fault* our_fault() { return fault; }
Stream our_stream() { return reinterpret_cast<Stream>(stream); }

Failure order(Stream before, Stream after) {
  cudaEvent_t event;
  const auto first = reinterpret_cast<cudaStream_t>(before);
  const auto then = reinterpret_cast<cudaStream_t>(after);
  if (Failure f = failure(cudaEventCreateWithFlags(&event, cudaEventDisableTiming))) return f;
  const Failure f = first_failure([=] { return cudaEventRecord(event, first); },
                                  [=] { return cudaStreamWaitEvent(then, event, 0); });
  (void)cudaEventDestroy(event);  // once it has happened
  return f;
}

const Runtime runtime = {
    .abi = runtime_abi(),
    .kernels = &table,
    .architectures = FASTDL_CUDA_ARCHITECTURES,
    .status = status,
    .properties = properties,
    .enter = enter,
    .allocate = allocate,
    .release = release,
    .allocate_pinned = allocate_pinned,
    .release_pinned = release_pinned,
    .owns = owns,
    .copy = copy,
    .synchronize = synchronize,
    .fault = our_fault,
    .stream = our_stream,
    .order = order,
};

}  // namespace
}  // namespace fastdl::cuda

/// The one symbol of libfastdl_cuda.so: its runtime, or null for a _core of another build.
extern "C" __attribute__((visibility("default"))) const fastdl::Runtime* fastdl_cuda_runtime(
    uint64_t abi) {
  return abi == fastdl::runtime_abi() ? &fastdl::cuda::runtime : nullptr;
}
