#pragma once
#include <cuda_runtime_api.h>

namespace fastdl::cuda {

/// The stream of all our work: see core/runtime.h.
extern cudaStream_t stream;

}  // namespace fastdl::cuda
