// random_index: one Philox block for two indices; the upper half of a 64 x 64 -> 128 bit product
// scales a word to the interval.
#include "ops/random_index/random_index.h"

#include "core/philox.h"
#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

FASTDL_INLINE int64_t scaled(uint32_t low, uint32_t upper, uint64_t high) {
  const uint64_t word = uint64_t{low} | uint64_t{upper} << 32;
  return int64_t(uint64_t((__uint128_t(word) * high) >> 64));
}

}  // namespace

void random_index(const RandomIndex& op, const Workspace&) {
  const int64_t B = op.index.shape[0];
  int64_t *state = op.state.as<int64_t>(), *index = op.index.as<int64_t>();
  const uint64_t seed = uint64_t(state[0]), offset = uint64_t(state[1]);
  const uint64_t high = uint64_t(*op.high.as<int64_t>());
  // A block costs as much as moving 200 bytes.
  parallel_range(B, 100, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += 2) {
      const Philox p = philox(seed, uint64_t(i) / 2, offset);
      index[i] = scaled(p.word[0], p.word[1], high);
      if (i + 1 < last) index[i + 1] = scaled(p.word[2], p.word[3], high);
    }
  });
  state[1] = int64_t(offset + 1);
}

}  // namespace fastdl::FASTDL_ISA
