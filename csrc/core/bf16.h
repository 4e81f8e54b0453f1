#pragma once
// Which instructions multiply bf16 numbers on this machine.
#include <cstdint>

namespace fastdl {

/// From the one that every machine has to the fastest: the float tile on rounded operands,
/// AVX512-BF16, AMX.  All give the same bits.
enum class Bf16Unit : uint8_t { fma, dot, amx };

/// The best one that this machine has and that use_bf16_unit allows.
Bf16Unit bf16_unit();
/// Allows no better one than this: for tests.
void use_bf16_unit(Bf16Unit most);

}  // namespace fastdl
