#pragma once
// How a (N, C, S) array is cut for batch_norm; by shape alone, since the cuts decide the bits.
#include "core/op.h"

namespace fastdl {

/// Two ways to walk:
///   by columns  the array is N rows of C S columns; blocks of rows times panels of columns
///   by channel  long S: a channel at a time, in pieces of rows times a panel of its S columns, so
///               that the second pass finds the channel in L2
struct BatchNormPlan {
  static constexpr int64_t kRowsPerMerge = 128, kPanel = 1024, kByChannel = 256;
  static constexpr int kCoefficients = 5;  // of a channel, at most
  static constexpr int64_t kFewRows = 8;   // fewer are folded into rows of kFold
  static constexpr int64_t kFold = 128;
  static constexpr int64_t kBlockElements = 64 * 1024;
  static constexpr int64_t kResidentBytes = int64_t{1} << 20;  // a channel that stays in L2
  static constexpr int kGroups = 8;                            // of a channel on a GPU chip ...
  static constexpr int64_t kGroupBytes = 216 * 1024;           // ... and what one may hold there

  int64_t N, C, S, columns;
  bool by_channel;
  int64_t block_rows, blocks;  // by channel: rows of a piece, pieces along N
  int64_t panel, panels;       // columns of a panel, panels of all columns or of S
  int64_t pieces;              // of a channel
  int64_t item;                // bytes of a number that is computed with
  int64_t pack_bytes;          // of 16 bytes of those in memory, where bf16 has half of them

  FASTDL_INLINE explicit BatchNormPlan(const View& X)
      : N(X.shape[0]), C(X.shape[1]), S(X.shape[2]), columns(C * S), by_channel(S >= kByChannel) {
    item = size_of(compute_dtype(X.dtype));
    pack_bytes = 16 * size_of(X.dtype) / item;
    const int64_t merges =
        by_channel || columns == 0 ? 1 : up(kBlockElements, kRowsPerMerge * columns);
    block_rows = kRowsPerMerge * merges;
    blocks = up(N, block_rows);
    if (!by_channel && blocks == 0) blocks = 1;
    panel = by_channel && N < kFewRows ? kFold * kRowsPerMerge : kPanel;
    panels = up(by_channel ? S : columns, panel);
    pieces = blocks * panels;
  }

  FASTDL_INLINE static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }
  /// Whether `arrays` arrays of one channel stay in L2 between two passes.
  FASTDL_INLINE bool resident(int arrays) const { return N * S * item * arrays <= kResidentBytes; }
  /// Whether a GPU takes a channel of `arrays` arrays as kGroups groups, rounds of 256 packs each.
  FASTDL_INLINE bool grouped(int arrays) const {
    const int64_t rounds = up(N * up(S * item, 16), kGroups * 256);
    return by_channel && N > 0 && rounds * 256 * pack_bytes * arrays <= kGroupBytes;
  }
  /// Doubles of the partial sums, two for each column of a block or for each piece, or three for
  /// each group.
  FASTDL_INLINE int64_t partials() const {
    const int64_t of_channel = 2 * pieces > 3 * kGroups ? 2 * pieces : 3 * kGroups;
    return by_channel ? C * of_channel : 2 * blocks * columns;
  }
  FASTDL_INLINE bool expands() const { return !by_channel && S != 1; }

  FASTDL_INLINE Scratch scratch() const {
    const int64_t doubles = aligned_bytes(8 * partials()) + aligned_bytes(8 * 2 * C);
    const int64_t coefficients =
        kCoefficients * (aligned_bytes(item * C) + (expands() ? aligned_bytes(item * columns) : 0));
    return {doubles + coefficients, 2 * kPanel * item};
  }
};

}  // namespace fastdl
