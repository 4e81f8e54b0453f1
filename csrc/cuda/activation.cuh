#pragma once
// How activations and their derivatives run over an array: one pass.
#include "cuda/pack.cuh"

namespace fastdl::FASTDL_ISA {
namespace {

template <class T, class Act>
struct ActivationForward {
  const T* x;
  T* y;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    store(y + i, map(load(x + i, n), [](T v) { return Act::forward(v); }), n);
  }
};

/// The derivative is written in y, so x need not be kept.
template <class T, class Act>
struct ActivationBackward {
  const T *dy, *y;
  T* dx;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const auto slope = [](T g, T v) { return Act::backward(g, v); };
    store(dx + i, map(load(dy + i, n), load(y + i, n), slope), n);
  }
};

template <class Act>
void activate(const View& X, const View& Y) {
  with_real(X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for_each_pack<T>(X.size(), ActivationForward<T, Act>{X.as<T>(), Y.as<T>()});
  });
}
template <class Act>
void through_activation(const View& dY, const View& Y, const View& dX) {
  with_real(Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for_each_pack<T>(Y.size(), ActivationBackward<T, Act>{dY.as<T>(), Y.as<T>(), dX.as<T>()});
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
