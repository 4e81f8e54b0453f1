// sum: one read, bound by bandwidth.
// The R rows of a matrix X_n are cut into pieces, and wide rows into panels of 512 columns.  Within
// a panel 16 rows at a time are added in registers, and their sum to a row of doubles that stays in
// L1: a chain of f32 additions has at most 16 terms, and one conversion serves 16 of them.
// Where M divides 16 (M = 1: the sum of a contiguous row) rows of 16 elements take the place of the
// rows: lane l holds column l mod M, and a fixed tree joins the lanes (l with l + 8, + 4, ...).
// Pieces depend on the shape alone and are added in a fixed order, so threads do not change bits.
#include "ops/sum/sum.h"

#include "cpu/columns.h"

namespace fastdl::FASTDL_ISA {
namespace {

constexpr int64_t kLane = 16;

template <class T>
FASTDL_INLINE void add_lanes(Vec<T> v, double* total) {
  T lane[kLanes<T>];
  store(lane, v);
  for (int l = 0; l < kLanes<T>; ++l) total[l] += double(lane[l]);
}

/// total[j] += sum_i x[i * ld + j] for j < columns; total has room for whole vectors.
template <class T>
FASTDL_INLINE void add_columns(const T* x, int64_t ld, int64_t rows, int64_t columns,
                               double* total) {
  for (int64_t i = 0; i < rows; i += SumForward::kChain) {
    const T* x_i = x + i * ld;
    const int64_t n = min_of(SumForward::kChain, rows - i);
    for_each_vector<T>(0, columns, [=](int64_t j, int64_t lanes) {
      Vec<T> sum = load(x_i + j, lanes);
      for (int64_t k = 1; k < n; ++k) sum = sum + load(x_i + k * ld + j, lanes);
      add_lanes<T>(sum, total + j);
    });
  }
}

/// total[0 .. M-1] = the column sums of `size` elements, where M divides 16.
template <class T>
FASTDL_INLINE void thin_sums(const T* x, int64_t size, int64_t M, double* total) {
  const int64_t rows = size / kLane, rest = size % kLane;
  for (int l = 0; l < kLane; ++l) total[l] = 0;
  if (rows == 0) {  // short rows, of which there are many
    for (int64_t i = 0; i < rest; ++i) total[i & (M - 1)] += double(x[i]);
    return;
  }
  add_columns(x, kLane, rows, kLane, total);
  if (rest) add_columns(x + rows * kLane, kLane, 1, rest, total);
  for (int64_t w = kLane / 2; w >= M; w /= 2)
    for (int64_t l = 0; l < w; ++l) total[l] += total[l + w];
}

template <class T>
FASTDL_INLINE void wide_sums(const T* x, int64_t ld, int64_t rows, int64_t columns, double* total) {
  for (int64_t j = 0; j < columns; ++j) total[j] = 0;
  add_columns(x, ld, rows, columns, total);
}

/// Where the sums of one call go: to Y, or to the partial sums of each piece.
template <class T>
struct Sink {
  T* y;
  double* partial;
  int64_t M, pieces;
  double count;

  FASTDL_INLINE void take(int64_t n, int64_t piece, int64_t j, int64_t columns,
                          const double* total) const {
    if (pieces == 1)
      for (int64_t k = 0; k < columns; ++k) y[n * M + j + k] = T(total[k] / count);
    else
      for (int64_t k = 0; k < columns; ++k) partial[(n * pieces + piece) * M + j + k] = total[k];
  }
  /// Adds the pieces.
  void finish(int64_t N) const {
    parallel_range(N * M, pieces * int64_t(sizeof(double)), [=, this](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const double* p = partial + i / M * pieces * M + i % M;
        y[i] = T(sum_of(pieces, [=, this](int64_t k) { return p[k * M]; }) / count);
      }
    });
  }
};

template <class T>
void sum_all(const SumForward& op, const Workspace& ws) {
  const int64_t N = op.X.shape[0], R = op.X.shape[1], M = op.X.shape[2];
  const bool thin = op.thin();
  const int64_t panel = thin ? M : SumForward::kPanel, panels = ceil_div(M, panel);
  const int64_t piece = op.piece_rows(), pieces = op.pieces(), tasks = N * pieces * panels;
  const int64_t cost = min_of(piece, R) * min_of(panel, M) + kLane;
  const int64_t group = max_of(1, SumForward::kPieceElements / cost);
  const Sink<T> sink{op.Y.as<T>(), reinterpret_cast<double*>(ws.shared), M, pieces,
                     double(op.count)};
  const T* x = op.X.as<T>();
  parallel_for(ceil_div(tasks, group), op.X.bytes() + tasks * 64, [&](int64_t chunk, int) {
    double total[SumForward::kPanel + kLane];
    const int64_t last = min_of(tasks, (chunk + 1) * group);
    for (int64_t task = chunk * group; task < last; ++task) {
      const int64_t j = task % panels * panel, p = task / panels % pieces;
      const int64_t n = task / panels / pieces, r = p * piece;
      const int64_t rows = min_of(piece, R - r), columns = min_of(panel, M - j);
      const T* from = x + (n * R + r) * M + j;
      if (thin)
        thin_sums(from, rows * M, M, total);
      else
        wide_sums(from, M, rows, columns, total);
      sink.take(n, p, j, columns, total);
    }
  });
  if (pieces > 1) sink.finish(N);
}

}  // namespace

void sum_forward(const SumForward& op, const Workspace& ws) {
  if (op.Y.size() == 0) return;
  with_real(op.X.dtype, [&](auto* t) { sum_all<std::remove_pointer_t<decltype(t)>>(op, ws); });
}

}  // namespace fastdl::FASTDL_ISA
