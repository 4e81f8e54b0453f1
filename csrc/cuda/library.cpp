// The one symbol of libfastdl_cuda.so.
#include "core/backend.h"

namespace fastdl::cuda {
extern const Backend table;
}

extern "C" __attribute__((visibility("default"))) const fastdl::Backend* fastdl_cuda_table() {
  return &fastdl::cuda::table;
}
