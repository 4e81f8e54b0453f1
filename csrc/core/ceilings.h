#pragma once
// The ceilings of one thread: what the listing of a program measures its kernels against.
#include <cstdint>

namespace fastdl {

struct Ceilings {
  double f32_flops, f64_flops;  // a second, in registers
  /// Bytes a second, read and written, of a copy whose arrays take so many bytes together.
  struct Copy {
    int64_t bytes;
    double rate;
  } copies[3];  // in L1, in L2, in memory
};

/// Takes about 50 ms.
Ceilings measure_ceilings();

}  // namespace fastdl
