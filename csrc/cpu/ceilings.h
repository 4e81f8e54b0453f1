#pragma once
#include "core/view.h"

namespace fastdl::FASTDL_ISA {

/// Multiply-adds in registers; returns the flop done.
double fma_in_registers(DType dtype, int64_t steps);
void copy_floats(const float* from, float* to, int64_t n);

}  // namespace fastdl::FASTDL_ISA
