#pragma once
// The vocabulary in which an op describes itself (see any csrc/ops/<op>/<op>.h).
//
// An op is a plain struct with a static `visit(self, v)` that names its arguments in call order.
// Checks, error texts, Python signatures, recording and byte counts are visitors over it.
#include <cstdint>

#include "core/fault.h"
#include "core/view.h"

namespace fastdl {

enum class Role : uint8_t { in, out, inout };
/// Which dtypes an argument admits.  All `real` arguments of a call share one dtype, as do all
/// `any`.  `stored` ones are like the `real` ones, or on a device bf16 beside f32: kernels compute
/// in f32 and round what they store.  `cast`: each any float dtype.
enum class Kind : uint8_t { real, index, i64, f64, u8, any, stored, cast };

/// What an op says about one of its arrays.
struct ArraySpec {
  const char* dims;  // letters bind sizes ("B n"); "*" is any shape, the same for every "*"
  Role role;
  Kind kind;
  bool optional;
  bool strided = false;  // any strides; otherwise C-contiguous
};

enum class Activation : uint8_t { none, relu, tanh };
enum class Reduction : uint8_t { none, sum, mean };

/// Names of an enum's values, in order, ending with null.
template <class E>
struct EnumNames;
template <>
struct EnumNames<Activation> {
  static constexpr const char* value[] = {"none", "relu", "tanh", nullptr};
};
template <>
struct EnumNames<Reduction> {
  static constexpr const char* value[] = {"none", "sum", "mean", nullptr};
};

/// Base of all visitors: turns the short words used in `visit` into array(name, view, spec).
template <class Derived>
struct Visitor {
  template <class V>
  void in(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::in, kind, false});
  }
  template <class V>
  void out(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::out, kind, false});
  }
  template <class V>
  void inout(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::inout, kind, false});
  }
  template <class V>
  void opt(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::in, kind, true});
  }
  template <class V>
  void opt_out(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::out, kind, true});
  }
  template <class V>
  void opt_inout(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::inout, kind, true});
  }
  /// An output that is added to if `adds`, else overwritten.
  template <class V>
  void opt_sum(const char* name, V& view, const char* dims, bool adds) {
    self().array(name, view, ArraySpec{dims, adds ? Role::inout : Role::out, Kind::real, true});
  }
  template <class V>
  void strided_in(const char* name, V& view, const char* dims, Kind kind = Kind::real) {
    self().array(name, view, ArraySpec{dims, Role::in, kind, false, true});
  }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }
};

/// Throws std::invalid_argument with this printf-style text; for an op's `validate`.
[[noreturn]] void fail_value(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Scratch memory an op needs: one block for the call and one for each thread that works on it.
struct Scratch {
  int64_t shared_bytes = 0;
  int64_t thread_bytes = 0;
};

/// What a running call gets besides its arguments.  Pieces of scratch memory are 64-byte aligned and uninitialised.
struct Workspace {
  char* shared = nullptr;
  char* threads = nullptr;
  int64_t thread_bytes = 0;
  Fault* fault = nullptr;  // on a device: where its kernels report bad values

  FASTDL_INLINE char* of_thread(int worker) const { return threads + worker * thread_bytes; }
};

/// Sizes of scratch pieces are rounded up so that the next piece is aligned too.
FASTDL_INLINE constexpr int64_t aligned_bytes(int64_t bytes) { return (bytes + 63) & ~int64_t{63}; }

}  // namespace fastdl
