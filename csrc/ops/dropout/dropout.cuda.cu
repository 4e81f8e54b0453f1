// dropout: one pass that makes its random words as it goes; forward and backward are the same map,
// except after relu, where the backward pass reads its mask from Y.
// A thread does the 4 elements of one Philox block, so the mask is that of the CPU, bit for bit.
// 1 read, 1 write; bound by bandwidth: 10 rounds of 2 wide products for 4 elements.
// The state lies in device memory, read by the first kernel and moved on by the second, so that a
// replayed graph draws anew.
#include "core/philox.h"
#include "cuda/pack.cuh"
#include "ops/dropout/dropout.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kWords = 4;

template <class T>
struct Drop {
  const T* x;
  const int64_t* state;
  T* y;
  uint64_t threshold;  // keep words from here on; 2^32 keeps none
  T scale;
  bool relu;

  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const Philox words = philox(uint64_t(state[0]), uint64_t(i) / kWords, uint64_t(state[1]));
    unroll<kWords / kPack<T>>([&](int part) {
      const int64_t first = part * kPack<T>;
      Pack<T> p = load(x + i + first, n - first);
      unroll<kPack<T>>([&](int k) {
        const T v = relu && p.at[k] < T(0) ? T(0) : p.at[k];
        p.at[k] = words.word[first + k] >= threshold ? v * scale : T(0);
      });
      store(y + i + first, p, n - first);
    });
  }
};

/// 1 / (1 - p), and 0 for p = 1, where nothing is kept.
double scale_of(double p) { return p < 1 ? 1 / (1 - p) : 0; }

void drop(const View& X, const View& state, double p, const View& Y, bool relu) {
  with_real(X.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const uint64_t threshold = uint64_t(p * 0x1p32 + 0.5);
    const T scale = T(scale_of(p));
    for_each_step<kWords>(
        X.size(), Drop<T>{X.as<T>(), state.as<int64_t>(), Y.as<T>(), threshold, scale, relu});
  });
}

/// What was dropped or cut off by relu is 0 in Y, the rest is not.
template <class T>
struct BackwardOfRelu {
  const T *dy, *y;
  T *dx, scale;
  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const T s = scale;
    const auto slope = [=](T g, T v) { return v <= T(0) ? T(0) : g * s; };
    store(dx + i, map(load(dy + i, n), load(y + i, n), slope), n);
  }
};

void backward_of_relu(const DropoutBackward& op) {
  with_real(op.dY.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    for_each_pack<T>(op.dY.size(), BackwardOfRelu<T>{op.dY.as<T>(), op.Y.as<T>(), op.dX.as<T>(),
                                                     T(scale_of(op.p))});
  });
}

__global__ void move_on(int64_t* state, int64_t* saved) {
  saved[0] = state[0], saved[1] = state[1];
  state[1] = int64_t(uint64_t(state[1]) + 1);
}

}  // namespace

void dropout_forward(const DropoutForward& op, const Workspace&) {
  drop(op.X, op.state, op.p, op.Y, op.activation == Activation::relu);
  launch(&move_on, 1, 1, op.state.as<int64_t>(), op.saved.as<int64_t>());
}

void dropout_backward(const DropoutBackward& op, const Workspace&) {
  if (op.activation == Activation::relu)
    backward_of_relu(op);
  else
    drop(op.dY, op.saved, op.p, op.dX, false);
}

}  // namespace fastdl::FASTDL_ISA
