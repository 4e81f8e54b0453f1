#pragma once
// A borrowed, strided array.  Trivially copyable, so that an op can be recorded by copying it and
// handed to a device by value.
#include <cstdint>

/// Shared by files that are compiled once per ISA: an inline function that was not inlined would be
/// a weak symbol, and the linker could keep the AVX-512 copy for everybody.
#define FASTDL_INLINE inline __attribute__((always_inline))

namespace fastdl {

enum class DType : uint8_t { f32, f64, bf16, i32, i64, u8 };
enum class Device : uint8_t { cpu, cuda, cuemu };  // cuemu: the emulator of CUDA, for tests

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

FASTDL_INLINE constexpr int64_t size_of(DType t) {
  return t == DType::f64 || t == DType::i64 ? 8 : t == DType::bf16 ? 2 : t == DType::u8 ? 1 : 4;
}

/// What kernels compute in where they store `t`.
FASTDL_INLINE constexpr DType compute_dtype(DType t) { return t == DType::bf16 ? DType::f32 : t; }

struct View {
  static constexpr int kMaxRank = 6;

  void* data = nullptr;
  int64_t shape[kMaxRank] = {};
  int64_t stride[kMaxRank] = {};  // in elements
  int8_t rank = -1;               // -1: an optional argument that was not given
  DType dtype = DType::f32;
  Device device = Device::cpu;
  bool readonly = false;

  FASTDL_INLINE explicit operator bool() const { return rank >= 0; }
  FASTDL_INLINE int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  /// Whether the host may read the elements.
  FASTDL_INLINE bool on_host() const { return device == Device::cpu; }
  FASTDL_INLINE int64_t bytes() const { return rank < 0 ? 0 : size() * size_of(dtype); }
  /// The elements, or null for an argument that was not given.
  template <class T>
  FASTDL_INLINE T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace fastdl
