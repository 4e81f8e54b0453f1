// dropout: one pass that makes its random words as it goes; forward and backward are the same map,
// except after relu, where the backward pass reads its mask from Y.
// Minimum traffic, 1 read and 1 write; in the cache it is bound by the generator, 2.5 instructions
// per element at 512 bits.  Words come by blocks of 4 elements counted from the start of the array,
// and chunks are whole vectors of blocks, so the mask depends on the state alone.
#include "ops/dropout/dropout.h"

#include "cpu/activation.h"
#include "cpu/loop.h"
#include "cpu/random.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// 1 / (1 - p), and 0 for p = 1, where nothing is kept.
FASTDL_INLINE double scale_of(double p) { return p < 1 ? 1 / (1 - p) : 0; }

struct Mask32 {
  uint64_t seed, offset;
  uint64_t threshold;  // keep words from here on; 2^32 keeps none
  double scale;

  Mask32(const int64_t* state, double p)
      : seed(uint64_t(state[0])),
        offset(uint64_t(state[1])),
        threshold(uint64_t(p * 0x1p32 + 0.5)),
        scale(scale_of(p)) {}
};

/// Lanes Half * L .. Half * L + L - 1 of a comparison of words, widened to those of doubles.
template <int Half, int... I>
FASTDL_INLINE Vec<int64_t> widen(Vec<int32_t> keep, std::integer_sequence<int, I...>) {
  const auto part = __builtin_shufflevector(keep, keep, (Half * int(sizeof...(I)) + I)...);
  return __builtin_convertvector(part, Vec<int64_t>);
}

template <Activation kAct, class T>
FASTDL_INLINE Vec<T> activated(const T* x, int64_t n) {
  const Vec<T> v = load(x, n);
  if constexpr (kAct == Activation::relu) return relu(v);
  return v;
}

/// Writes one vector of words' worth of elements, n of them.
template <Activation kAct, class T>
FASTDL_INLINE void apply(Vec<int32_t> keep, const T* x, Vec<T> scale, T* y, int64_t n) {
  if constexpr (sizeof(T) == 4) {
    store(y, select<T>(keep, activated<kAct>(x, n) * scale, Vec<T>{}), n);
  } else {
    constexpr int L = kLanes<T>;
    const auto lanes = std::make_integer_sequence<int, L>();
    store(y, select<T>(widen<0>(keep, lanes), activated<kAct>(x, n) * scale, Vec<T>{}), n);
    store(y + L, select<T>(widen<1>(keep, lanes), activated<kAct>(x + L, n - L) * scale, Vec<T>{}),
          n - L);
  }
}

template <Activation kAct, class T>
void drop(const View& X, const Mask32& mask, const View& Y) {
  constexpr int64_t kHalf = kPhiloxWords / 2;
  const T* x = X.as<T>();
  T* y = Y.as<T>();
  const Vec<T> scale = broadcast(T(mask.scale));
  const Words threshold = Words{} + uint32_t(mask.threshold);
  const Vec<int32_t> some = Vec<int32_t>{} - int32_t(mask.threshold <= 0xffffffffu);
  // Making a word costs as much as moving 8 bytes.
  parallel_range(X.size(), 2 * sizeof(T) + 8, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += kPhiloxWords) {
      Words w[2];
      philox_words(mask.seed, mask.offset, uint64_t(i) / 4, w);
      const int64_t n = last - i;
      apply<kAct>((Vec<int32_t>)(w[0] >= threshold) & some, x + i, scale, y + i, n);
      apply<kAct>((Vec<int32_t>)(w[1] >= threshold) & some, x + i + kHalf, scale, y + i + kHalf,
                  n - kHalf);
    }
  });
}

template <Activation kAct>
void drop(const View& X, const int64_t* state, double p, const View& Y) {
  const Mask32 mask(state, p);
  with_real(X.dtype, [&](auto* t) { drop<kAct, std::remove_pointer_t<decltype(t)>>(X, mask, Y); });
}

/// What was dropped or cut off by relu is 0 in Y, the rest is not: a product with 1 / (1 - p) >= 1
/// does not underflow.
template <class T>
void backward_of_relu(const DropoutBackward& op) {
  const T *dy = op.dY.as<T>(), *y = op.Y.as<T>();
  T* dx = op.dX.as<T>();
  const Vec<T> scale = broadcast(T(scale_of(op.p)));
  parallel_range(op.dY.size(), 3 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
      store(dx + i, Relu::backward<T>(load(dy + i, n) * scale, load(y + i, n)), n);
    });
  });
}

}  // namespace

void dropout_forward(const DropoutForward& op, const Workspace&) {
  int64_t *state = op.state.as<int64_t>(), *saved = op.saved.as<int64_t>();
  if (op.activation == Activation::relu)
    drop<Activation::relu>(op.X, state, op.p, op.Y);
  else
    drop<Activation::none>(op.X, state, op.p, op.Y);
  saved[0] = state[0], saved[1] = state[1];
  state[1] = int64_t(uint64_t(state[1]) + 1);
}

void dropout_backward(const DropoutBackward& op, const Workspace&) {
  if (op.activation == Activation::relu)
    with_real(op.dY.dtype,
              [&](auto* t) { backward_of_relu<std::remove_pointer_t<decltype(t)>>(op); });
  else
    drop<Activation::none>(op.dY, op.saved.as<int64_t>(), op.p, op.dX);
}

}  // namespace fastdl::FASTDL_ISA
