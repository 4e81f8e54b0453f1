#pragma once
// What a kernel on a device reports of a bad value.  On the CPU an op checks labels and indices
// before its kernel runs (Op::validate); a device's memory cannot be read without waiting for it.
// There the kernel checks what it reads: the first bad value is noted here, nothing is read or
// written out of bounds, and the next synchronisation raises it.
#include <cstdint>

namespace fastdl {

/// All zeros until a kernel reports.
struct Fault {
  int32_t raised;
  int32_t padding;
  const char* text;  // printf format for the value, the limit and the element (%1$lld ...)
  int64_t value, limit, element;
};

}  // namespace fastdl
