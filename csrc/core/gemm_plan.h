#pragma once
// How much scratch a matrix product needs, and the constants that are part of its contract.
#include "core/op.h"

namespace fastdl {

/// What the operands of a product are rounded to before they are multiplied; sums stay in the
/// precision of the arrays.
enum class Precision : uint8_t { full, bf16 };
template <>
struct EnumNames<Precision> {
  static constexpr const char* value[] = {"full", "bf16", nullptr};
};

/// Throws unless arrays of this dtype may be multiplied in this precision.
inline void check_precision(const char* op, Precision precision, DType dtype) {
  if (precision == Precision::bf16 && dtype != DType::f32)
    fail_value("%s: precision must be full unless all arrays are float32, got bf16", op);
}

/// Length of a k-block.  Part of the numerical contract: within a block an element of C is one fma
/// chain over k ascending, and the block sums are added in order.  So neither tiles, threads, batch
/// nor vector width can change a bit.  256: a packed panel of B (256 x 32 f32 or 256 x 16 f64) is
/// 32 KiB and stays in L1 while the rows of A go by.
constexpr int64_t kKC = 256;

/// A packed block of A is at most 504 KiB, half of a 1 MiB L2.
constexpr int64_t kBlockBytesA = 504 * 1024;
constexpr int64_t kPanelBytesB = 64 * 1024;  // kKC x 4 vectors of 64 bytes

/// Scratch of each thread that works on a product.
FASTDL_INLINE constexpr int64_t gemm_thread_bytes() {
  return kBlockBytesA + kPanelBytesB + 16 * 1024;
}

}  // namespace fastdl
