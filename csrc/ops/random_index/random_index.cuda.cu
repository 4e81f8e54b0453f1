// random_index: one Philox block for two indices, by one thread; the upper half of a 64 x 64 -> 128 bit
// product scales a word to the interval.  The bits of the CPU.  1 write; bound by bandwidth.
// State and interval lie in device memory, so that a replayed graph draws anew; a second launch moves
// the state on when nobody reads it any more.
#include "core/philox.h"
#include "cuda/pack.cuh"
#include "ops/random_index/random_index.h"

namespace fastdl::FASTDL_ISA {
namespace {

FASTDL_DEVICE int64_t scaled(uint32_t low, uint32_t upper, uint64_t high) {
  const uint64_t word = uint64_t{low} | uint64_t{upper} << 32;
  return int64_t(uint64_t((__uint128_t(word) * high) >> 64));
}

struct Draw {
  const int64_t *state, *high;
  int64_t* index;
  Bounds bounds;

  FASTDL_DEVICE void operator()(int64_t i, int64_t n) const {
    const Philox p = philox(uint64_t(state[0]), uint64_t(i) / 2, uint64_t(state[1]));
    if (*high < 1) bounds.report(*high, 0);
    const uint64_t end = uint64_t(*high);
    store(index + i,
          Pack<int64_t>{{scaled(p.word[0], p.word[1], end), scaled(p.word[2], p.word[3], end)}}, n);
  }
};

__global__ void move_on(int64_t* state) { state[1] = int64_t(uint64_t(state[1]) + 1); }

}  // namespace

void random_index(const RandomIndex& op, const Workspace& ws) {
  int64_t* state = op.state.as<int64_t>();
  for_each_pack<int64_t>(
      op.index.size(),
      Draw{state, op.high.as<int64_t>(), op.index.as<int64_t>(), {ws.fault, op.kBadHigh, 0}});
  launch(&move_on, 1, 1, state);
}

}  // namespace fastdl::FASTDL_ISA
