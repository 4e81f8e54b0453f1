#pragma once
// Products in bf16 by the matrix unit of AMX: 32 x 32 tiles of C in four of its registers.
//
// A step of 32 k is tdpbf16ps on 16 x 16 pairs; four of them read two tiles of A and two of B, so
// that loads (8 cycles each) keep pace with products (16 cycles each).  A pair holds k in its lower
// half and k + 16 in its upper one: so each chain has neighbouring k, and one register of A is two
// loads and a rounding where k lies contiguous in memory.  Where the layout is the other one, 16 x 16
// pairs are transposed in registers.
//
// A panel of B (16 KiB) and two tiles of A (16 KiB) fit L1.  Whole tiles of sums are loaded from C and
// stored there between k-blocks; the epilogue goes over them once, after the last, and not at all
// where there is nothing to do.

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kAmxRows = 32, kAmxStep = 2 * kChain;
constexpr int64_t kAmxTile = 256;  // pairs: 16 x 16, 1 KiB

/// Time as bytes: the operands go by once, and the unit does 16 times as much as gemm_work assumes.
FASTDL_INLINE Cut amx_cut(const Product<float>& p) {
  const int64_t bytes = 4 * (p.M * p.K + p.K * p.N + p.M * p.N);
  return {kBlockBytesA / 2 / kKC, kAmxRows, gemm_work(p) / 16 + bytes};
}

#if defined(__AVX512F__)

/// Sets up the tile registers of this thread, and gives them back.
class AmxTiles {
 public:
  AmxTiles() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64);
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  ~AmxTiles() { __asm__ volatile("tilerelease" ::: "memory"); }
};

/// 16 lines (rows of A or columns of B) by one step: line r, k at lines[r * row + k * col], of which
/// `n_lines` and `n_k` exist; the others are zeros.  Stored line by line, or, for B, pair by pair.
__attribute__((noinline)) void pack_amx_tile(const Matrix<float>& lines, int64_t n_lines,
                                             int64_t n_k, bool by_line, float* to) {
  const bool along_k = lines.col == 1;  // vectors run along k, else across the lines
  const int64_t next = along_k ? lines.row : lines.col, second = kChain * lines.col;
  const float* p = lines.data;
  alignas(64) float lying[kAmxTile];
  const bool turn = along_k != by_line;
  float* const out = turn ? lying : to;
  if (n_lines == 16 && n_k == kAmxStep) {
    unroll<16>([&](auto r) FASTDL_UNROLLED {
      store(out + r * 16, paired(load(p + second), load(p)));
      p += next;
    });
  } else {
    for (int r = 0; r < 16; ++r, p += next) {
      const int64_t lower = along_k ? (r < n_lines ? n_k : 0) : (r < n_k ? n_lines : 0);
      const int64_t upper =
          along_k ? (r < n_lines ? n_k - kChain : 0) : (r + kChain < n_k ? n_lines : 0);
      store(out + r * 16, paired(load(p + second, upper), load(p, lower)));
    }
  }
  if (turn) pack_transposed(lying, 16, 16, 16, to, 16);
}

/// Rows [0, rows) of A for one k-block: tile by tile, each all its steps.
void pack_amx_rows(const Matrix<float>& A, int64_t rows, int64_t kc, float* to) {
  const int64_t steps = ceil_div(kc, kAmxStep), tiles = ceil_div(rows, 16);
  for (int64_t at = 0; at < tiles * steps; ++at) {  // along the rows of memory
    const int64_t tile = A.col == 1 ? at / steps : at % tiles;
    const int64_t step = A.col == 1 ? at % steps : at / tiles;
    pack_amx_tile(A.at(tile * 16, step * kAmxStep), min_of(16, rows - tile * 16),
                  min_of(kAmxStep, kc - step * kAmxStep), true,
                  to + (tile * steps + step) * kAmxTile);
  }
}

/// A panel of B, 32 columns: step by step, both halves of each.
void pack_amx_panel(const Matrix<float>& B, int64_t cols, int64_t kc, float* to) {
  for (int64_t k = 0; k < kc; k += kAmxStep)
    for (int64_t j = 0; j < cols; j += 16) {
      const Matrix<float> at = B.at(k, j);
      pack_amx_tile({at.data, at.col, at.row}, min_of(16, cols - j), min_of(kAmxStep, kc - k),
                    false, to + (2 * k / kAmxStep + j / 16) * kAmxTile);
    }
}

/// C = A B, or C += A B: registers 0..3, of which two hold the rows from 16 on and two the columns.
template <bool kTwoRows, bool kTwoCols>
void amx_steps(const float* a, int64_t a_tile, const float* b, int64_t steps, bool add, float* C,
               int64_t ldc) {
  const int64_t pitch = 64, c_pitch = 4 * ldc;
  float* const below = C + 16 * ldc;
  __asm__ volatile("tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3" ::);
  if (add) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm0" ::"r"(C), "r"(c_pitch) : "memory");
    if (kTwoCols)
      __asm__ volatile("tileloadd (%0,%1,1), %%tmm1" ::"r"(C + 16), "r"(c_pitch) : "memory");
    if (kTwoRows)
      __asm__ volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(below), "r"(c_pitch) : "memory");
    if (kTwoRows && kTwoCols)
      __asm__ volatile("tileloadd (%0,%1,1), %%tmm3" ::"r"(below + 16), "r"(c_pitch) : "memory");
  }
  for (; steps > 0; --steps, a += kAmxTile, b += 2 * kAmxTile) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm4" ::"r"(a), "r"(pitch) : "memory");
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm6" ::"r"(b), "r"(pitch) : "memory");
    __asm__ volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0" ::);
    if (kTwoCols) {
      __asm__ volatile("tileloadd (%0,%1,1), %%tmm7" ::"r"(b + kAmxTile), "r"(pitch) : "memory");
      __asm__ volatile("tdpbf16ps %%tmm7, %%tmm4, %%tmm1" ::);
    }
    if (kTwoRows) {
      __asm__ volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(a + a_tile), "r"(pitch) : "memory");
      __asm__ volatile("tdpbf16ps %%tmm6, %%tmm5, %%tmm2" ::);
    }
    if (kTwoRows && kTwoCols) __asm__ volatile("tdpbf16ps %%tmm7, %%tmm5, %%tmm3" ::);
  }
  __asm__ volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(C), "r"(c_pitch) : "memory");
  if (kTwoCols)
    __asm__ volatile("tilestored %%tmm1, (%0,%1,1)" ::"r"(C + 16), "r"(c_pitch) : "memory");
  if (kTwoRows)
    __asm__ volatile("tilestored %%tmm2, (%0,%1,1)" ::"r"(below), "r"(c_pitch) : "memory");
  if (kTwoRows && kTwoCols)
    __asm__ volatile("tilestored %%tmm3, (%0,%1,1)" ::"r"(below + 16), "r"(c_pitch) : "memory");
}

/// At most 32 x 32 elements of C, whole tiles in place.
void amx_tile(TileCall<float> c, int64_t rows) {
  alignas(64) float edge[kAmxRows * kAmxRows];
  const int64_t steps = ceil_div(c.kc, kAmxStep);
  const bool whole = rows % 16 == 0 && c.cols % 16 == 0;
  float* const sums = whole ? c.C : edge;
  const int64_t ld = whole ? c.ldc : kAmxRows;
  if (!whole && c.add) load_sums(c, rows, edge, kAmxRows);
  const auto run = rows > 16 ? (c.cols > 16 ? amx_steps<true, true> : amx_steps<true, false>)
                             : (c.cols > 16 ? amx_steps<false, true> : amx_steps<false, false>);
  run(c.A.data, steps * kAmxTile, c.B, steps, c.add, sums, ld);
  if (!whole || c.bias || c.activation != Activation::none) finish_sums(c, rows, sums, ld);
}

/// All panels of a piece for one k-block.
void amx_block(const Product<float>& p, const Piece& piece, int64_t k0, int64_t kc, char* scratch) {
  float* const panel = reinterpret_cast<float*>(scratch);
  float* const packed = reinterpret_cast<float*>(scratch + kPanelBytesB);
  const int64_t rows = piece.i1 - piece.i0, row_pairs = ceil_div(kc, kAmxStep) * 16;
  pack_amx_rows(p.A.at(piece.i0, k0), rows, kc, packed);
  const AmxTiles tiles;
  for (int64_t j = piece.j0; j < piece.j1; j += kAmxRows) {
    TileCall<float> c = panel_call(p, k0, kc, j, min_of(kAmxRows, piece.j1 - j));
    pack_amx_panel(p.B.at(k0, j), c.cols, kc, panel);
    c.B = panel;
    for (int64_t i = 0; i < rows; i += kAmxRows) {
      const int64_t at = (piece.i0 + i) * p.ldc + j;
      c.A = {packed + i * row_pairs, 1, 0};
      c.C = p.C + at;
      c.y = p.e.y ? p.e.y + at : nullptr;
      amx_tile(c, min_of(kAmxRows, rows - i));
    }
  }
}

#else
void amx_block(const Product<float>&, const Piece&, int64_t, int64_t, char*) {}
#endif

}  // namespace
}  // namespace fastdl::FASTDL_ISA
