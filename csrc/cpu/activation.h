#pragma once
// Activations, shared by their own ops and by those that fuse them.
#include "cpu/loop.h"
#include "cpu/math.h"

namespace fastdl::FASTDL_ISA {
namespace {

// y = forward(z) and dz = backward(dy, y): the derivative is written in y, so z need not be kept.

struct Relu {
  template <class T>
  static FASTDL_INLINE Vec<T> forward(Vec<T> z) {
    return relu(z);
  }
  template <class T>
  static FASTDL_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y) {
    return select<T>(y <= Vec<T>{}, Vec<T>{}, dy);
  }
};

struct Tanh {
  template <class T>
  static FASTDL_INLINE Vec<T> forward(Vec<T> z) {
    return tanh(z);
  }
  template <class T>
  static FASTDL_INLINE Vec<T> backward(Vec<T> dy, Vec<T> y) {
    return dy * fma(-y, y, broadcast(T(1)));
  }
};

/// Calls f with the type of the activation; not at all for none.
template <class F>
FASTDL_INLINE void with_activation(Activation a, F&& f) {
  if (a == Activation::relu) f(Relu{});
  if (a == Activation::tanh) f(Tanh{});
}

/// y = act(z); y may be z.
template <class Act, class T>
void activate(const T* z, T* y, int64_t size) {
  parallel_range(size, 2 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
      store(y + i, Act::template forward<T>(load(z + i, n)), n);
    });
  });
}

/// dz = dy act'(z); dz may be dy or y.
template <class Act, class T>
void through_activation(const T* dy, const T* y, T* dz, int64_t size) {
  parallel_range(size, 3 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
      store(dz + i, Act::template backward<T>(load(dy + i, n), load(y + i, n)), n);
    });
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
