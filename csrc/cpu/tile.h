#pragma once
// The register kernel of the matrix product: an MR x (NV vectors) tile of C, held in registers
// while k runs over one block.
//
// Size: fma has latency 4 on two ports, so MR * NV >= 8 chains hide it; a step of k loads MR
// broadcasts and NV vectors for MR * NV fmas, and two loads and two fmas issue per cycle, so
// MR * NV > MR + NV keeps the fma ports the bottleneck.  With 32 registers 14 x 2 (28 accumulators,
// 2 of B, 1 broadcast); with 16 registers 6 x 2.  Few rows take 7 x 4 or 3 x 4: the same
// accumulators, more columns for each pass over A.
#include <utility>

#include "cpu/activation.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// Element (i, j) is data[i * row + j * col].
template <class T>
struct Matrix {
  const T* data;
  int64_t row, col;

  FASTDL_INLINE Matrix at(int64_t i, int64_t j) const {
    return {data + i * row + j * col, row, col};
  }
};

constexpr int kTileRows = kRegisters >= 32 ? 14 : 6;     // of a tile 2 vectors wide
constexpr int kWideTileRows = kRegisters >= 32 ? 7 : 3;  // of a tile 4 vectors wide

/// One call of the register kernel.
template <class T>
struct TileCall {
  int64_t kc;
  Matrix<T> A;  // MR x kc
  const T* B;   // kc rows, `ldb` apart
  int64_t ldb;
  T* C;             // MR rows, `ldc` apart
  const T* chains;  // tiles of 4 vectors: the sums to start from, laid out as C; null: from 0
  int64_t ldc;
  int64_t cols;           // <= NV vectors
  bool add;               // C += instead of C =
  const T* bias;          // null unless this is the last k-block
  Activation activation;  // likewise none
  const T* y;             // if not null, C goes through act' at y, which lies as C does
  T* pack;                // ReadB::pack: B is also copied here, in rows of NV vectors
  // Of the next panel of B, what is fetched into L2 meanwhile: NV vectors `next_col` apart for each
  // step from `next` to `next_end`.
  const T *next, *next_end;
  int64_t next_step, next_col;
};

enum class ReadB { whole, pack };  // pack: masked reads, and a copy for the rows to come

/// Rows of A as pointers, three rows to a pointer: p, p + row, p + 2 row are addressing modes.
template <class T, int MR, bool kUnitRows>
struct RowsOfA {
  static constexpr int kGroups = kUnitRows ? 1 : (MR + 2) / 3;
  const T* p[kGroups];
  int64_t row, step;

  FASTDL_INLINE explicit RowsOfA(const Matrix<T>& A) : row(A.row), step(A.col) {
    unroll<kGroups>([&](auto g) FASTDL_UNROLLED { p[g] = A.data + 3 * g * A.row; });
  }
  template <int I>
  FASTDL_INLINE const T& at() const {
    if constexpr (kUnitRows) return p[0][I];
    if constexpr (!kUnitRows && I % 3 == 0) return p[I / 3][0];
    if constexpr (!kUnitRows && I % 3 == 1) return p[I / 3][row];
    if constexpr (!kUnitRows && I % 3 == 2) return p[I / 3][2 * row];
  }
  template <int I>
  FASTDL_INLINE T get() const {
    return at<I>();
  }
  FASTDL_INLINE void next() {
    unroll<kGroups>([&](auto g) FASTDL_UNROLLED { p[g] += step; });
  }
};

/// The activation of a finished tile that is still in L1, where it is not inlined into the tile.
template <class T>
__attribute__((noinline)) void activate_tile(const TileCall<T>& c, int rows) {
  with_activation(c.activation, [&](auto act) {
    using Act = decltype(act);
    for (int i = 0; i < rows; ++i)
      for_each_vector<T>(i * c.ldc, i * c.ldc + c.cols, [&](int64_t j, int64_t n) {
        const Vec<T> v = load(c.C + j, n);
        store(c.C + j,
              c.y ? Act::template backward<T>(v, load(c.y + j, n)) : Act::template forward<T>(v),
              n);
      });
  });
}

/// The epilogue of a tile of one vector, or that ends inside its last vectors: rare, so one copy serves
/// all tiles.
template <class T>
__attribute__((noinline)) void finish_partial_tile(const TileCall<T>& c, const T* acc, int rows,
                                                   int width) {
  for (int i = 0; i < rows; ++i)
    for_each_vector<T>(0, c.cols, [&](int64_t j, int64_t n) {
      Vec<T> v = load(acc + i * width + j, n);
      if (c.add) v = load(c.C + i * c.ldc + j, n) + v;
      if (c.bias) v = v + load(c.bias + j, n);
      if (c.activation == Activation::relu)
        v = c.y ? Relu::backward<T>(v, load(c.y + i * c.ldc + j, n)) : relu(v);
      store(c.C + i * c.ldc + j, v, n);
    });
  if (c.activation != Activation::relu) activate_tile(c, rows);
}

template <class T, int MR, int NV, ReadB kRead>
FASTDL_INLINE void finish_tile(const TileCall<T>& c, Vec<T> (&acc)[MR][NV]) {
  constexpr int L = kLanes<T>;
  const auto each = [&](auto f) FASTDL_UNROLLED {
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      unroll<NV>([&](auto j) FASTDL_UNROLLED { f(i, j, c.C + i * c.ldc + j * L); });
    });
  };
  if (NV == 1 || c.cols != NV * L) {
    alignas(64) T copy[MR * NV * L];
    each([&](auto i, auto j, T*) FASTDL_UNROLLED { store(copy + (i * NV + j) * L, acc[i][j]); });
    finish_partial_tile(c, copy, MR, NV * L);
  } else {
    if (c.add) each([&](auto i, auto j, T* p) FASTDL_UNROLLED { acc[i][j] = load(p) + acc[i][j]; });
    if (c.bias)
      each([&](auto i, auto j, T*)
               FASTDL_UNROLLED { acc[i][j] = acc[i][j] + load(c.bias + j * L); });
    // The derivative is inlined where dX of a batch is formed; elsewhere it would only be code.
    constexpr bool kDerivative = NV == 2 && kRead == ReadB::whole && MR > kTileRows / 2;
    const bool here = c.activation == Activation::relu && (kDerivative || !c.y);
    if (here && !c.y)
      each([&](auto i, auto j, T*) FASTDL_UNROLLED { acc[i][j] = relu(acc[i][j]); });
    if constexpr (kDerivative)
      if (here && c.y)
        each([&](auto i, auto j, T* p) FASTDL_UNROLLED {
          acc[i][j] = Relu::backward<T>(acc[i][j], load(c.y + (p - c.C)));
        });
    each([&](auto i, auto j, T* p) FASTDL_UNROLLED { store(p, acc[i][j]); });
    if (!here && c.activation != Activation::none) activate_tile(c, MR);
  }
}

template <class T, int MR, int NV, bool kUnitRows, ReadB kRead>
void tile(const TileCall<T>& c) {
  constexpr int L = kLanes<T>;
  Vec<T> acc[MR][NV];
  unroll<MR>([&](auto i) FASTDL_UNROLLED {
    unroll<NV>([&](auto j) FASTDL_UNROLLED { acc[i][j] = Vec<T>{}; });
  });
  if (NV == 4 && c.chains)
    unroll<MR>([&](auto i) FASTDL_UNROLLED {
      unroll<NV>([&](auto j) FASTDL_UNROLLED { acc[i][j] = load(c.chains + i * c.ldc + j * L); });
    });
  RowsOfA<T, MR, kUnitRows> a(c.A);
  const T* b = c.B;
  T* pack = c.pack;
  Mask<T> mask[NV];
  unroll<NV>([&](auto j) FASTDL_UNROLLED { mask[j] = first_lanes<T>(c.cols - j * L); });
  const T* next = c.next;
  // The lines of C and of the next panel are prefetched one by one while k runs: all at once they
  // would take every fill buffer and hold up A and B.  Short products are in cache already.  It is
  // the last element of a vector that is prefetched: where vectors straddle lines (NumPy aligns to 16
  // bytes), the line of the first one has come with the vector to the left.
  constexpr int kLines = MR * NV;
  const int64_t stretch = c.kc < 128 ? c.kc : c.kc / kLines;
  int line = 0;
  for (int64_t left = c.kc; left > 0; left -= stretch) {
    // What the prefetches need is read from c each time: kept in registers it would displace
    // accumulators, and the compiler then spills inside the loop over k.
    __asm__ volatile("" ::: "memory");
    __builtin_prefetch(c.C + line / NV * c.ldc + line % NV * L + L - 1, 1);
    if (line < kLines - 1) ++line;
    if (next != c.next_end) {
      unroll<NV>([&](auto j)
                     FASTDL_UNROLLED { __builtin_prefetch(next + j * c.next_col + L - 1, 0, 2); });
      next += c.next_step;
    }
    for (int64_t k = min_of(left, stretch); k > 0; --k) {
      Vec<T> bv[NV];
      unroll<NV>([&](auto j) FASTDL_UNROLLED {
        bv[j] = kRead == ReadB::whole ? load(b + j * L) : load_masked(b + j * L, mask[j]);
        if constexpr (kRead == ReadB::pack) store(pack + j * L, bv[j]);
      });
      unroll<MR>([&](auto i) FASTDL_UNROLLED {
        const Vec<T> x = in_register(broadcast(a.template get<i>()));
        unroll<NV>([&](auto j) FASTDL_UNROLLED { acc[i][j] = fma(x, bv[j], acc[i][j]); });
      });
      a.next();
      b += c.ldb;
      if constexpr (kRead == ReadB::pack) pack += NV * L;
    }
  }
  finish_tile<T, MR, NV, kRead>(c, acc);
}

template <class T>
using Tile = void (*)(const TileCall<T>&);

/// The kernels for kFirst..MR rows.  Only tiles above MR / 2 rows ever pack: rows are shared out
/// evenly, and a single tile has nobody to pack for.
template <class T, int MR, int NV, bool kUnitRows, ReadB kRead>
struct Tiles {
  static constexpr int kFirst = kRead == ReadB::pack ? MR / 2 + 1 : 1;
  template <int... I>
  struct Table {
    static constexpr Tile<T> of_rows[] = {&tile<T, kFirst + I, NV, kUnitRows, kRead>...};
  };
  template <int... I>
  static Table<I...> table(std::integer_sequence<int, I...>);
  static FASTDL_INLINE Tile<T> of(int64_t rows) {
    return decltype(table(
        std::make_integer_sequence<int, MR - kFirst + 1>{}))::of_rows[rows - kFirst];
  }
};

}  // namespace
}  // namespace fastdl::FASTDL_ISA
