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
//   dot  a vdpbf16ps (AVX512-BF16) is two fmas of a chain, first the upper halves of its pairs
//   fma  fmas of rounded floats, while the CPU flushes subnormals
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

FASTDL_INLINE Vec<float> dot(Vec<float> c, Vec<float> pairs, const float& pair) {
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(pairs), "m"(pair));
  return c;
}
/// Both rounded to bf16, as pairs with `upper` in the upper halves.
FASTDL_INLINE Vec<float> paired(Vec<float> upper, Vec<float> lower) {
  typedef int32_t Order __attribute__((vector_size(64)));
  Order order{};
  for (int i = 0; i < 16; ++i) order[i] = (16 + i) << 16 | i;
  __m512i both;
  __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(upper), "v"(lower));
  return (Vec<float>)_mm512_permutexvar_epi16((__m512i)order, both);
}
#else
FASTDL_INLINE Vec<float> dot(Vec<float> c, Vec<float>, const float&) { return c; }
FASTDL_INLINE Vec<float> paired(Vec<float> upper, Vec<float>) { return upper; }
#endif

/// acc = the chain over the next n <= kChain of k, from 0 on.
template <int MR, int NV, bool kPairs>
FASTDL_INLINE void chain(int64_t n, const float*& a, int64_t lda, const float*& b,
                         Vec<float> (&acc)[MR][NV]) {
  constexpr int L = kLanes<float>;
  const auto each = [&](auto f) FASTDL_UNROLLED {
    unroll<MR>([&](auto i)
                   FASTDL_UNROLLED { unroll<NV>([&](auto j) FASTDL_UNROLLED { f(i, j); }); });
  };
  each([&](auto i, auto j) FASTDL_UNROLLED { acc[i][j] = Vec<float>{}; });
  for (int64_t k = 0; k < n; k += kPairs ? 2 : 1, a += lda, b += NV * L) {
    Vec<float> bv[NV];
    unroll<NV>([&](auto j) FASTDL_UNROLLED { bv[j] = load(b + j * L); });
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      if constexpr (kPairs) {
        unroll<NV>([&](auto j) FASTDL_UNROLLED { acc[i][j] = dot(acc[i][j], bv[j], a[i]); });
      } else {
        const Vec<float> x = in_register(broadcast(a[i]));
        unroll<NV>([&](auto j) FASTDL_UNROLLED { acc[i][j] = fma(x, bv[j], acc[i][j]); });
      }
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
template <int MR, int NV, bool kPairs>
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
    chain<MR, NV, kPairs>(min_of(kChain, c.kc - k), a, c.A.col, b, acc);
    each([&](auto& x, int at) FASTDL_UNROLLED { store(first + at, x); });
    chain<MR, NV, kPairs>(max_of(0, min_of(kChain, c.kc - k - kChain)), a, c.A.col, b, acc);
    each([&](auto& x, int at)
             FASTDL_UNROLLED { store(sums + at, load(sums + at) + (load(first + at) + x)); });
  }
}

/// At most MR rows by 2 vectors.  Rows that are missing are computed from what follows in the packed
/// block, and not stored: one tile serves many heights.
template <int MR, bool kPairs>
__attribute__((noinline)) void chained_tile(TileCall<float> c, int64_t rows) {
  constexpr int L = kLanes<float>, NV = 2;
  alignas(64) float sums[MR * NV * L] = {};
  if (c.add) load_sums(c, rows, sums, NV * L);
  chained_sums<MR, NV, kPairs>(c, sums);
  finish_sums(c, rows, sums, NV * L);
}

constexpr int kFewRows = (kTileRows + 3) / 4;

/// Rounds kc packed rows of `width` in place.  With kPairs, two rows become one of pairs; a last one
/// without partner gets zeros.
template <bool kPairs>
void round_packed(float* p, int64_t width, int64_t kc) {
  if (!kPairs)
    return for_each_vector<float>(
        0, width * kc, [=](int64_t i, int64_t n) { store(p + i, rounded(load(p + i, n)), n); });
  for (int64_t k = 0; k < kc; k += 2)
    for_each_vector<float>(0, width, [=](int64_t j, int64_t n) {
      const float* upper = p + k * width + j;
      const Vec<float> lower = load(upper + width, k + 1 < kc ? n : 0);
      store(p + k / 2 * width + j, paired(load(upper, n), lower), n);
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
template <bool kPairs>
void chained_block(const Product<float>& p, const Piece& piece, int64_t k0, int64_t kc,
                   char* scratch) {
  constexpr int NR = 2 * kLanes<float>;
  float* const panel = reinterpret_cast<float*>(scratch);
  float* const packed = reinterpret_cast<float*>(scratch + kPanelBytesB);
  const int64_t rows = piece.i1 - piece.i0;
  const int64_t step = ceil_div(rows, ceil_div(rows, kTileRows));
  const int64_t tile_size = packed_tile_size<float>(step, kc);
  pack_rows(p.A.at(piece.i0, k0), rows, step, kc, packed);
  for (int64_t i = 0; i < rows; i += step)
    round_packed<kPairs>(packed + i / step * tile_size, min_of(step, rows - i), kc);
  for (int64_t j = piece.j0; j < piece.j1; j += NR) {
    TileCall<float> c = panel_call(p, k0, kc, j, min_of(NR, piece.j1 - j));
    pack_panel<float, 2>(p.B.at(k0, j), kc, c.cols, panel);
    round_packed<kPairs>(panel, NR, kc);
    c.B = panel;
    for (int64_t i = 0; i < rows; i += step) {
      const int64_t n = min_of(step, rows - i), at = (piece.i0 + i) * p.ldc + j;
      c.A = {packed + i / step * tile_size, 1, n};
      c.C = p.C + at;
      c.y = p.e.y ? p.e.y + at : nullptr;
      if (n <= kFewRows)
        chained_tile<kFewRows, kPairs>(c, n);
      else
        chained_tile<kTileRows, kPairs>(c, n);
    }
  }
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA

#include "cpu/gemm_amx.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// C (M x N) = epilogue(A B) with A and B rounded to bf16; it does not form sums of B's columns.
void gemm_bf16(const Product<float>& p, const Workspace& ws) {
  if (p.M == 0 || p.N == 0) return;
  const Bf16Unit unit = kVectorBytes == 64 ? bf16_unit() : Bf16Unit::fma;
  const bool amx = unit == Bf16Unit::amx;
  const auto block = amx                     ? amx_block
                     : unit == Bf16Unit::dot ? chained_block<kVectorBytes == 64>
                                             : chained_block<false>;
  const Cut cut = amx ? amx_cut(p) : Cut{kBlockBytesA / 4 / kKC, kTileRows, gemm_work(p)};
  for_each_piece(p, cut, [&](const Piece& piece, int worker) {
    int64_t k0 = 0;
    do {
      block(p, piece, k0, min_of(kKC, p.K - k0), ws.of_thread(worker));
      k0 += kKC;
    } while (k0 < p.K);
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
