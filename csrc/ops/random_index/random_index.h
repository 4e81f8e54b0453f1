#pragma once
#include "core/op.h"

namespace fastdl {

/// index_i = floor(u_i high), u_i uniform in [0, 1)       state (2), high ()  ->  state (2), index (B)
/// state = [seed, offset]; the offset after is one more.  u_i 2^64 is words 2 (i mod 2) and
/// 2 (i mod 2) + 1, low word first, of Philox4x32-10 with key = seed, counter = (i / 2, offset).
/// cost     1 write; bound by the generator, ~10 ns an index
/// numerics probabilities differ by less than high / 2^64
/// source   Lemire, "Fast random integer generation in an interval", 2019 (without rejection);
///          Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011
struct RandomIndex {
  static constexpr const char* name = "random_index";
  static constexpr const char* kBadHigh = "random_index: high must be at least 1, got %1$lld";
  View state, high, index;
  void validate() const {
    if (!high.on_host()) return;  // on a device the kernel looks at it
    const int64_t n = *high.as<int64_t>();
    if (n < 1) fail_value(kBadHigh, (long long)n);
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.inout("state", op.state, "2", Kind::i64);
    v.in("high", op.high, "", Kind::i64);
    v.out("index", op.index, "B", Kind::i64);
  }
};

}  // namespace fastdl
