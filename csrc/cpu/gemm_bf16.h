#pragma once
// C = epilogue(A B) with A and B rounded to bf16 and sums in float.
//
// The order of the sums is that of AMX, by far the fastest unit (cpu/gemm_amx.h), so that all others
// can follow it.  k runs in steps of 32: two chains of 16 fmas over k ascending, each from 0, then their
// sum, which is added to the sum of the steps before: to 0 at first, or to what is in C where that
// accumulates.  All of them round to nearest even; subnormal numbers, going in or coming out, count as
// 0.  The rest of the epilogue is ordinary arithmetic.  So k may be cut anywhere between steps.
//
//   amx  a tdpbf16ps is one step: its even elements form one chain, its odd ones the other
//   dot  a vdpbf16ps (AVX512-BF16) is two fmas of a chain (cpu/gemm_dot.h)
//   fma  fmas of rounded floats, while the CPU flushes subnormals: below
//
// Pieces, panels and tiles are as in cpu/gemm.h, but everything is packed: it is rounded on the way.
#include "core/bf16.h"
#include "cpu/gemm.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kChain = 16;
static_assert(kKC % (2 * kChain) == 0);

/// Subnormal numbers count as 0 while it lives.  The compiler does not know, and may move arithmetic
/// across; what is loaded and stored in between stays there.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FASTDL_INLINE FlushSubnormals() : before_(_mm_getcsr()) {
    _mm_setcsr(before_ | 0x8040);
    __asm__ volatile("" ::: "memory");
  }
  FASTDL_INLINE ~FlushSubnormals() {
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(before_);
  }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FASTDL_INLINE FlushSubnormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" ::"r"(before_ | uint64_t{1} << 24) : "memory");
  }
  FASTDL_INLINE ~FlushSubnormals() { __asm__ volatile("msr fpcr, %0" ::"r"(before_) : "memory"); }

 private:
  uint64_t before_;
#endif
};

/// x as bf16, still in a float: to nearest even, subnormals to 0, NaN quiet.
FASTDL_INLINE Vec<float> rounded(Vec<float> x) {
  using Bits = VecOf<uint32_t>::type;
  const Bits bits = (Bits)x, size = bits & 0x7fffffff;
  Bits r = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  r = size < 0x00800000 ? bits & 0x80000000 : r;
  r = size > 0x7f800000 ? (bits & 0xffff0000) | 0x00400000 : r;
  return (Vec<float>)r;
}

#if defined(__AVX512F__)
// By name rather than as intrinsics: those are only to be had in functions compiled for AVX512-BF16,
// and such a function takes no lambda, which unrolling is made of.

/// Both rounded to bf16, as pairs with `upper` in the upper halves.
FASTDL_INLINE Vec<float> paired(Vec<float> upper, Vec<float> lower) {
  typedef int32_t Order __attribute__((vector_size(64)));
  Order order{};
  for (int i = 0; i < 16; ++i) order[i] = (16 + i) << 16 | i;
  __m512i both;
  __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(upper), "v"(lower));
  return (Vec<float>)_mm512_permutexvar_epi16((__m512i)order, both);
}
#endif

/// acc = the chain over the next n <= kChain of k, from 0 on.
template <int MR, int NV>
FASTDL_INLINE void chain(int64_t n, const float*& a, int64_t lda, const float*& b,
                         Vec<float> (&acc)[MR][NV]) {
  constexpr int L = kLanes<float>;
  const auto each = [&](auto f) FASTDL_UNROLLED {
    unroll<MR>([&](auto i)
                   FASTDL_UNROLLED { unroll<NV>([&](auto j) FASTDL_UNROLLED { f(i, j); }); });
  };
  each([&](auto i, auto j) FASTDL_UNROLLED { acc[i][j] = Vec<float>{}; });
  for (int64_t k = 0; k < n; ++k, a += lda, b += NV * L) {
    Vec<float> bv[NV];
    unroll<NV>([&](auto j) FASTDL_UNROLLED { bv[j] = load(b + j * L); });
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      const Vec<float> x = in_register(broadcast(a[i]));
      unroll<NV>([&](auto j) FASTDL_UNROLLED { acc[i][j] = fma(x, bv[j], acc[i][j]); });
    });
  }
  // As the products of zeros that fill up a step of AMX: they turn -0 into 0.
  if (n < kChain)
    each([&](auto i, auto j) FASTDL_UNROLLED { acc[i][j] = acc[i][j] + Vec<float>{}; });
}

/// The sums so far of a tile, which lie in C.
FASTDL_INLINE void load_sums(const TileCall<float>& c, int64_t rows, float* sums, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i)
    for_each_vector<float>(0, c.cols, [&](int64_t j, int64_t n) {
      store(sums + i * ld + j, load(c.C + i * c.ldc + j, n));
    });
}

/// Bias and activation; `sums` may be where C is.
FASTDL_INLINE void finish_sums(TileCall<float>& c, int64_t rows, const float* sums, int64_t ld) {
  c.add = false;
  finish_partial_tile(c, sums, int(rows), int(ld));
}

/// Adds to the sums of a tile of MR rows by NV vectors; what is not the running chain waits in L1.
template <int MR, int NV>
FASTDL_INLINE void chained_sums(const TileCall<float>& c, float* sums) {
  constexpr int L = kLanes<float>;
  alignas(64) float first[MR * NV * L];
  const FlushSubnormals flush;
  Vec<float> acc[MR][NV];
  const auto each = [&](auto f) FASTDL_UNROLLED {
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      unroll<NV>([&](auto j) FASTDL_UNROLLED { f(acc[i][j], (i * NV + j) * L); });
    });
  };
  const float *a = c.A.data, *b = c.B;
  for (int64_t k = 0; k < c.kc; k += 2 * kChain) {
    chain<MR, NV>(min_of(kChain, c.kc - k), a, c.A.col, b, acc);
    each([&](auto& x, int at) FASTDL_UNROLLED { store(first + at, x); });
    chain<MR, NV>(max_of(0, min_of(kChain, c.kc - k - kChain)), a, c.A.col, b, acc);
    each([&](auto& x, int at)
             FASTDL_UNROLLED { store(sums + at, load(sums + at) + (load(first + at) + x)); });
  }
}

template <int MR, int NV>
FASTDL_INLINE void copy_tile(const float* from, int64_t from_ld, float* to, int64_t to_ld) {
  constexpr int L = kLanes<float>;
  for (int i = 0; i < MR; ++i)
    unroll<NV>([&](auto j) FASTDL_UNROLLED {
      store(to + i * to_ld + j * L, load(from + i * from_ld + j * L));
    });
}

/// At most MR rows by 2 vectors.  Rows that are missing are computed from what follows in the packed
/// block, and not stored: one tile serves many heights.
template <int MR>
__attribute__((noinline)) void chained_tile(TileCall<float> c, int64_t rows) {
  constexpr int NV = 2, NR = NV * kLanes<float>;
  const bool whole = rows == MR && c.cols == NR;
  alignas(64) float sums[MR * NR];
  if (!c.add || !whole) __builtin_memset(sums, 0, sizeof sums);
  if (c.add && whole)
    copy_tile<MR, NV>(c.C, c.ldc, sums, NR);
  else if (c.add)
    load_sums(c, rows, sums, NR);
  chained_sums<MR, NV>(c, sums);
  if (whole && !c.bias && c.activation == Activation::none)
    copy_tile<MR, NV>(sums, NR, c.C, c.ldc);
  else
    finish_sums(c, rows, sums, NR);
}

constexpr int kFewRows = (kTileRows + 3) / 4;

/// Rounds kc rows of `cols` and stores them as rows of `width`; `from` may be `to`.
void round_rows(const float* from, int64_t row, int64_t cols, int64_t kc, float* to,
                int64_t width) {
  for (int64_t k = 0; k < kc; ++k, from += row, to += width)
    for_each_vector<float>(0, width, [=](int64_t j, int64_t n) {
      store(to + j, rounded(load(from + j, max_of(0, min_of(n, cols - j)))), n);
    });
}

/// What the tiles of a panel have in common: `j` is its first column.
FASTDL_INLINE TileCall<float> panel_call(const Product<float>& p, int64_t k0, int64_t kc, int64_t j,
                                         int64_t cols) {
  const bool done = k0 + kc == p.K;
  TileCall<float> c{};
  c.kc = kc, c.ldc = p.ldc, c.cols = cols;
  c.add = k0 > 0 || p.e.accumulate;
  c.bias = done && p.e.bias ? p.e.bias + j : nullptr;
  c.activation = done ? p.e.activation : Activation::none;
  return c;
}

/// All panels of a piece for one k-block.
void chained_block(const Product<float>& p, const Piece& piece, int64_t k0, int64_t kc,
                   char* scratch) {
  constexpr int NR = 2 * kLanes<float>;
  float* const panel = reinterpret_cast<float*>(scratch);
  float* const packed = reinterpret_cast<float*>(scratch + kPanelBytesB);
  const int64_t rows = piece.i1 - piece.i0;
  const int64_t step = ceil_div(rows, ceil_div(rows, kTileRows));
  const int64_t tile_size = packed_tile_size<float>(step, kc);
  pack_rows(p.A.at(piece.i0, k0), rows, step, kc, packed);
  for (int64_t i = 0; i < rows; i += step) {
    float* const tile = packed + i / step * tile_size;
    const int64_t n = min_of(step, rows - i);
    round_rows(tile, n, n, kc, tile, n);
  }
  for (int64_t j = piece.j0; j < piece.j1; j += NR) {
    TileCall<float> c = panel_call(p, k0, kc, j, min_of(NR, piece.j1 - j));
    const Matrix<float> B = p.B.at(k0, j);
    if (B.col == 1) {
      round_rows(B.data, B.row, c.cols, kc, panel, NR);
    } else {
      pack_panel<float, 2>(B, kc, c.cols, panel);
      round_rows(panel, NR, NR, kc, panel, NR);
    }
    c.B = panel;
    for (int64_t i = 0; i < rows; i += step) {
      const int64_t n = min_of(step, rows - i), at = (piece.i0 + i) * p.ldc + j;
      c.A = {packed + i / step * tile_size, 1, n};
      c.C = p.C + at;
      c.y = p.e.y ? p.e.y + at : nullptr;
      if (n <= kFewRows)
        chained_tile<kFewRows>(c, n);
      else
        chained_tile<kTileRows>(c, n);
    }
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA

#include "cpu/gemm_amx.h"
#include "cpu/gemm_dot.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Of blocks of k of about the same length, whole steps and none longer than `most`.
FASTDL_INLINE int64_t block_length(int64_t K, int64_t most) {
  const int64_t steps = ceil_div(K, 2 * kChain);
  return ceil_div(steps, max_of(1, ceil_div(K, most))) * 2 * kChain;
}

/// C (M x N) = epilogue(A B) with A and B rounded to bf16; it does not form sums of B's columns.
void gemm_bf16(const Product<float>& p, const Workspace& ws) {
  if (p.M == 0 || p.N == 0) return;
  const Bf16Unit unit = kVectorBytes == 64 ? bf16_unit() : Bf16Unit::fma;
  // With nothing to sum there is no step either, which dot_steps needs.
  const bool amx = unit == Bf16Unit::amx, dot = unit == Bf16Unit::dot && p.K > 0;
  const auto block = amx ? amx_block : dot ? dot_block : chained_block;
  const Cut cut = amx   ? amx_cut(p)
                  : dot ? dot_cut(p)
                        : Cut{kBlockBytesA / 4 / kKC, kTileRows, gemm_work(p)};
  const int64_t kc = block_length(p.K, dot ? kDotBlock : kKC);
  for_each_piece(p, cut, [&](const Piece& piece, int worker) {
    int64_t k0 = 0;
    do {
      block(p, piece, k0, min_of(kc, p.K - k0), ws.of_thread(worker));
      k0 += kc;
    } while (k0 < p.K);
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
