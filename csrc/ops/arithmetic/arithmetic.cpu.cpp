// add, sub, mul: one pass, bound by bandwidth.
// Axes that lie behind one another in both operands (a broadcast one has stride 0) are merged; what
// remains are rows along the innermost axis.  Equal shapes and a scalar operand leave one row, a
// row vector or a column two axes.  Along a row an operand has stride 1 (vectors are loaded) or 0
// (one number for all lanes); other strides go element by element.
// Chunks are cut in Y, by its size alone; every element stands alone, so bits cannot depend on it.
#include "ops/arithmetic/arithmetic.h"

#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

struct Axis {
  int64_t size, x, z;  // strides of the operands in elements
};

/// The merged axes, innermost first; at least one.
struct Plan {
  Axis axis[View::kMaxRank];
  int rank = 0;
};

FASTDL_INLINE Plan merged_axes(const View& X, const View& other) {
  Plan p;
  for (int i = X.rank - 1; i >= 0; --i) {
    const Axis a{X.shape[i], X.stride[i], other.stride[i]};
    if (a.size == 1) continue;
    Axis* inner = p.rank ? &p.axis[p.rank - 1] : nullptr;
    if (inner && a.x == inner->x * inner->size && a.z == inner->z * inner->size)
      inner->size *= a.size;
    else
      p.axis[p.rank++] = a;
  }
  if (p.rank == 0) p.axis[p.rank++] = {1, 1, 1};
  return p;
}

/// Where the operands are at an element of Y.
struct Position {
  int64_t index[View::kMaxRank];
  int64_t x = 0, z = 0;

  FASTDL_INLINE Position(const Plan& p, int64_t element) {
    for (int a = 0; a < p.rank; element /= p.axis[a++].size) {
      index[a] = element % p.axis[a].size;
      x += index[a] * p.axis[a].x, z += index[a] * p.axis[a].z;
    }
  }
  /// Goes to the start of the next row.
  FASTDL_INLINE void next_row(const Plan& p) {
    x -= index[0] * p.axis[0].x, z -= index[0] * p.axis[0].z;
    index[0] = 0;
    for (int a = 1; a < p.rank; ++a) {
      x += p.axis[a].x, z += p.axis[a].z;
      if (++index[a] < p.axis[a].size) return;
      x -= index[a] * p.axis[a].x, z -= index[a] * p.axis[a].z;
      index[a] = 0;
    }
  }
};

/// An operand along a row: as it lies in memory, or one number for all.
template <class T>
struct Lying {
  const T* p;
  FASTDL_INLINE Vec<T> at(int64_t j, int64_t n) const { return load(p + j, n); }
};
template <class T>
struct Repeated {
  Vec<T> value;
  FASTDL_INLINE Vec<T> at(int64_t, int64_t) const { return value; }
};

template <class T, class A, class B, class F>
FASTDL_INLINE void vector_row(const A a, const B b, T* y, int64_t n, F f) {
  for_each_vector<T>(0, n, [=](int64_t j, int64_t lanes) {
    store(y + j, f(a.at(j, lanes), b.at(j, lanes)), lanes);
  });
}

template <class T, class F>
FASTDL_INLINE void row(const T* x, int64_t sx, const T* z, int64_t sz, T* y, int64_t n, F f) {
  if (sx == 1 && sz == 1)
    vector_row(Lying<T>{x}, Lying<T>{z}, y, n, f);
  else if (sx == 1 && sz == 0)
    vector_row(Lying<T>{x}, Repeated<T>{broadcast(*z)}, y, n, f);
  else if (sx == 0 && sz == 1)
    vector_row(Repeated<T>{broadcast(*x)}, Lying<T>{z}, y, n, f);
  else if (sx == 0 && sz == 0)
    vector_row(Repeated<T>{broadcast(*x)}, Repeated<T>{broadcast(*z)}, y, n, f);
  else
    for (int64_t j = 0; j < n; ++j) y[j] = f(x[j * sx], z[j * sz]);
}

template <class Op, class F>
void combine(const Op& op, F f) {
  if (op.Y.size() == 0) return;
  const Plan p = merged_axes(op.X, op.other);
  with_real(op.Y.dtype, [&](auto* t) {
    using T = std::remove_pointer_t<decltype(t)>;
    const T *x = op.X.template as<T>(), *z = op.other.template as<T>();
    T* y = op.Y.template as<T>();
    parallel_range(op.Y.size(), 3 * sizeof(T), [&](int64_t first, int64_t last) {
      Position at(p, first);
      for (int64_t i = first; i < last; at.next_row(p)) {
        const int64_t n = min_of(p.axis[0].size - at.index[0], last - i);
        row(x + at.x, p.axis[0].x, z + at.z, p.axis[0].z, y + i, n, f);
        i += n;
      }
    });
  });
}

struct Plus {
  template <class V>
  FASTDL_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};
struct Minus {
  template <class V>
  FASTDL_INLINE V operator()(V a, V b) const {
    return a - b;
  }
};
struct Times {
  template <class V>
  FASTDL_INLINE V operator()(V a, V b) const {
    return a * b;
  }
};

}  // namespace

void add_forward(const AddForward& op, const Workspace&) { combine(op, Plus{}); }

void sub_forward(const SubForward& op, const Workspace&) { combine(op, Minus{}); }

void mul_forward(const MulForward& op, const Workspace&) { combine(op, Times{}); }

}  // namespace fastdl::FASTDL_ISA
