#pragma once
// Products in bf16 by vdpbf16ps (AVX512-BF16): a pair of neighbouring k in each lane, the first of them
// in the upper half, since the instruction multiplies upper halves first.
//
// Both chains of a step run at once in 7 x 2 vectors each (28 accumulators, 4 of B; A is broadcast by
// the instruction), so that nothing of a step leaves the registers but its sum.  Operands are rounded
// once, on the way into scratch, and k is filled up to whole steps with zeros, whose products do to a
// sum what those of AMX do: -0 becomes 0.  A is never transposed: where its rows run along k they stay
// rows, of pairs.  Where the columns of B do, their pairs are transposed, half as many as numbers.
//
// A panel of B (24 KiB) and the rows of a tile (5 KiB) stay in L1.  The next panel comes into L2
// meanwhile, as in cpu/gemm.h.

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int kDotRows = 7;
constexpr int64_t kDotColumns = 2 * kLanes<float>, kDotBlock = 384;
constexpr int64_t kPairsOfChain = kChain / 2, kPairsOfStep = kChain;

/// Whether C is fetched ahead of the tiles.  Below 2 MiB its lines may still be in the cache of the
/// other core, and fetching them made products on two threads up to a third slower; more has gone to
/// memory meanwhile, and waiting for it takes longer.
FASTDL_INLINE bool fetches_c(const Product<float>& p) {
  return p.M * p.ldc * int64_t{sizeof(float)} >= 2 << 20;
}

FASTDL_INLINE Cut dot_cut(const Product<float>& p) {
  return {kBlockBytesA / (2 * kDotBlock), 2 * kDotRows, gemm_work(p)};
}

#if defined(__AVX512F__)

FASTDL_INLINE Vec<float> dot(Vec<float> c, Vec<float> pairs, const float& pair) {
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(pairs), "m"(pair));
  return c;
}

/// Rounded, neighbours as pairs.
FASTDL_INLINE Vec<float> neighbours(Vec<float> first, Vec<float> second) {
  __m512i both;
  __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(second), "v"(first));
  return (Vec<float>)_mm512_rol_epi32(both, 16);
}

/// kc numbers in a row, as `pairs` pairs.
FASTDL_INLINE void round_along(const float* from, int64_t kc, int64_t pairs, float* to) {
  constexpr int L = kLanes<float>;
  int64_t k = 0;
  for (; k + 2 * L <= kc; k += 2 * L)
    store(to + k / 2, neighbours(load(from + k), load(from + k + L)));
  if (k / 2 < pairs) {
    const Vec<float> first = load(from + k, kc - k);
    store(to + k / 2, neighbours(first, load(from + k + L, max_of(0, kc - k - L))));
  }
}

/// A vector of row k, at `from`, with row k + 1: `rows` rows and `n` numbers of each are there.
FASTDL_INLINE Vec<float> round_across(const float* from, int64_t row, int64_t n, int64_t rows) {
  n = max_of(0, n);
  return paired(load(from, rows > 0 ? n : 0), load(from + row, rows > 1 ? n : 0));
}

/// Rows of A, in tiles of `step` rows that are `tile_size` apart.
void round_a(const Matrix<float>& A, int64_t rows, int64_t step, int64_t kc, int64_t pairs,
             int64_t tile_size, float* to) {
  if (A.row != 1) {
    for (int64_t i = 0; i < rows; i += step, to += tile_size)
      for (int64_t r = 0; r < min_of(step, rows - i); ++r)
        round_along(A.data + (i + r) * A.row, kc, pairs, to + r * pairs);
    return;
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {  // down the rows of memory, for all tiles at once
    const float* const from = A.data + 2 * pair * A.col;
    float* tile = to;
    for (int64_t i = 0; i < rows; i += step, tile += tile_size) {
      const int64_t n = min_of(step, rows - i);
      store(tile + pair * n, round_across(from + i, A.col, n, kc - 2 * pair), n);
    }
  }
}

/// A panel of B, `cols` columns, as rows of 2 vectors.
void round_panel(const Matrix<float>& B, int64_t cols, int64_t kc, int64_t pairs, float* to) {
  constexpr int64_t L = kLanes<float>, NR = kDotColumns;
  if (B.col == 1) {
    const float* from = B.data;
    const int64_t whole = cols == NR ? kc / 2 : 0;
    for (int64_t pair = 0; pair < pairs; ++pair, from += 2 * B.row, to += NR)
      unroll<2>([&](auto v) FASTDL_UNROLLED {
        const float* const at = from + v * L;
        store(to + v * L, pair < whole ? paired(load(at), load(at + B.row))
                                       : round_across(at, B.row, cols - v * L, kc - 2 * pair));
      });
    return;
  }
  constexpr int64_t kStretch = 64;  // of k, whose pairs stay in L1
  alignas(64) float lying[NR * kStretch / 2];
  if (cols < NR) __builtin_memset(to, 0, pairs * NR * sizeof(float));
  for (int64_t k = 0; k < kc; k += kStretch) {
    const int64_t n = min_of(kStretch / 2, pairs - k / 2);
    for (int64_t j = 0; j < cols; ++j)
      round_along(B.data + j * B.col + k, min_of(kStretch, kc - k), n, lying + j * n);
    pack_transposed(lying, n, cols, n, to + k / 2 * NR, NR);
  }
}

/// Sums of a register tile: they start in `from`, and `steps` steps are added on the way to `to`.
struct DotCall {
  int64_t steps;
  Matrix<float> A;  // of pairs
  const float* B;
  const float* from;
  int64_t from_ld;
  float* to;
  int64_t to_ld;
  bool fetch;  // the lines of `to`
};

/// One step of MR rows: to = from + (first chain + second chain).
template <int MR>
FASTDL_INLINE void dot_step(TileCall<float>& c, const Matrix<float>& A, const float* b,
                            const float* from, int64_t from_ld, float* to, int64_t to_ld) {
  constexpr int NV = 2, L = kLanes<float>, NR = NV * L;
  RowsOfA<float, MR, false> a1(A), a2(A.at(0, kPairsOfChain));
  Vec<float> first[MR][NV], second[MR][NV];
  const auto each = [&](auto f) FASTDL_UNROLLED {
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      unroll<NV>([&](auto j) FASTDL_UNROLLED { f(first[i][j], second[i][j], i, j); });
    });
  };
  each([](auto& x, auto& y, auto, auto) FASTDL_UNROLLED { x = y = Vec<float>{}; });
  for (int pair = 0; pair < kPairsOfChain; ++pair, b += NR) {
    __asm__ volatile("" ::: "memory");  // as in tile(): what the prefetches need stays in memory
    if (c.next != c.next_end) {
      unroll<NV>([&](auto j) FASTDL_UNROLLED {
        __builtin_prefetch(c.next + j * c.next_col + L - 1, 0, 2);
      });
      c.next += c.next_step;
    }
    Vec<float> b1[NV], b2[NV];
    unroll<NV>([&](auto j) FASTDL_UNROLLED {
      b1[j] = load(b + j * L), b2[j] = load(b + kPairsOfChain * NR + j * L);
    });
    each([&](auto& x, auto& y, auto i, auto j) FASTDL_UNROLLED {
      x = dot(x, b1[j], a1.template at<i>()), y = dot(y, b2[j], a2.template at<i>());
    });
    a1.next(), a2.next();
  }
  each([&](auto& x, auto& y, auto i, auto j) FASTDL_UNROLLED {
    store(to + i * to_ld + j * L, load(from + i * from_ld + j * L) + (x + y));
  });
}

template <int MR>
__attribute__((noinline)) void dot_steps(TileCall<float>& c, const DotCall& d) {
  constexpr int64_t L = kLanes<float>, NR = kDotColumns;
  alignas(64) float sums[MR * NR];
  if (d.fetch)
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      __builtin_prefetch(d.to + i * d.to_ld + L - 1, 1);
      __builtin_prefetch(d.to + i * d.to_ld + 2 * L - 1, 1);
    });
  Matrix<float> A = d.A;
  const float *b = d.B, *from = d.from;
  int64_t from_ld = d.from_ld;
  for (int64_t left = d.steps; left > 0; --left) {
    const bool last = left == 1;
    dot_step<MR>(c, A, b, from, from_ld, last ? d.to : sums, last ? d.to_ld : NR);
    from = sums, from_ld = NR;
    A = A.at(0, kPairsOfStep), b += kPairsOfStep * NR;
  }
}

template <int... I>
struct DotTable {
  static constexpr void (*of_rows[])(TileCall<float>&, const DotCall&) = {dot_steps<I + 1>...};
};
template <int... I>
DotTable<I...> dot_table(std::integer_sequence<int, I...>);

/// At most 2 kDotRows rows by 2 vectors.
void dot_tile(TileCall<float> c, int64_t rows, bool fetch_c) {
  using Steps = decltype(dot_table(std::make_integer_sequence<int, kDotRows>{}));
  constexpr int64_t NR = kDotColumns;
  alignas(64) static constexpr float kZeros[NR] = {};
  alignas(64) float sums[2 * kDotRows * NR];
  const bool whole = c.cols == NR, in_place = whole && !c.bias && c.activation == Activation::none;
  DotCall d{ceil_div(c.kc, 2 * kChain), c.A, c.B, kZeros, 0, sums, NR, in_place && fetch_c};
  if (c.add && !whole) load_sums(c, rows, sums, NR);
  if (c.add) d.from = whole ? c.C : sums, d.from_ld = whole ? c.ldc : NR;
  if (in_place) d.to = c.C, d.to_ld = c.ldc;
  {
    const FlushSubnormals flush;
    const int64_t upper = rows > kDotRows ? (rows + 1) / 2 : rows;
    Steps::of_rows[upper - 1](c, d);
    d.A = d.A.at(upper, 0), d.from += upper * d.from_ld, d.to += upper * d.to_ld;
    if (upper < rows) Steps::of_rows[rows - upper - 1](c, d);
  }
  if (!in_place) finish_sums(c, rows, sums, NR);
}

/// All panels of a piece for one block of k.
void dot_block(const Product<float>& p, const Piece& piece, int64_t k0, int64_t kc, char* scratch) {
  constexpr int64_t NR = kDotColumns;
  const int64_t pairs = ceil_div(kc, 2 * kChain) * kPairsOfStep;
  float* const panel = reinterpret_cast<float*>(scratch);
  float* const packed = panel + pairs * NR;
  const int64_t rows = piece.i1 - piece.i0, tiles = ceil_div(rows, 2 * kDotRows);
  const int64_t step = ceil_div(rows, tiles), tile_size = packed_tile_size<float>(step, pairs);
  const Matrix<float> A = p.A.at(piece.i0, k0);
  round_a(A, rows, step, kc, pairs, tile_size, packed);
  for (int64_t j = piece.j0; j < piece.j1; j += NR) {
    const Matrix<float> B = p.B.at(k0, j);
    TileCall<float> c = panel_call(p, k0, kc, j, min_of(NR, piece.j1 - j));
    round_panel(B, c.cols, kc, pairs, panel);
    c.B = panel;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t i = tile * step, n = min_of(step, rows - i), at = (piece.i0 + i) * p.ldc + j;
      if (j + NR < piece.j1) fetch_share<float, 2>(c, B, tile, tiles);
      c.A = {packed + tile * tile_size, A.row == 1 ? 1 : pairs, A.row == 1 ? n : 1};
      c.C = p.C + at;
      c.y = p.e.y ? p.e.y + at : nullptr;
      dot_tile(c, n, fetches_c(p));
    }
  }
}

#else
void dot_block(const Product<float>&, const Piece&, int64_t, int64_t, char*) {}
#endif

}  // namespace
}  // namespace fastdl::FASTDL_ISA
