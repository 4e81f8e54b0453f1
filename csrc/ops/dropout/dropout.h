#pragma once
#include "core/op.h"

namespace fastdl {

/// Throws unless p is a probability.
FASTDL_INLINE void validate_dropout(const char* op, double p) {
  if (!(p >= 0 && p <= 1)) fail_value("%s: p must be in [0, 1], got %g", op, p);
}

/// Y_i = X_i / (1 - p) where element i is kept, else 0
///                               X (*)  state (2)  ->  Y (*)  state (2)  saved (2)
/// state = [seed, offset]; saved is the state before, and the offset after is one more.
/// Element i is kept iff word i mod 4 of Philox4x32-10 with key = seed and counter = (i / 4, offset)
/// is at least round(p 2^32): no mask is stored.
/// cost     1 read, 1 write; Y may be X
/// numerics one product; what is dropped is 0 even if it was infinite or NaN
/// source   Srivastava et al., "Dropout", JMLR 2014; Salmon et al., "Parallel random numbers: as
///          easy as 1, 2, 3", SC 2011
struct DropoutForward {
  static constexpr const char* name = "dropout_forward";
  static constexpr bool inplace = true;
  View X, state, Y, saved;
  double p = 0.5;
  double flops() const { return double(X.size()); }
  void validate() const { validate_dropout(name, p); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*");
    v.inout("state", op.state, "2", Kind::i64);
    v.out("Y", op.Y, "*");
    v.out("saved", op.saved, "2", Kind::i64);
    v.attr("p", op.p);
  }
};

/// dX_i = dY_i / (1 - p) where the forward pass kept element i, else 0  dY (*), saved (2) -> dX (*)
/// cost     1 read, 1 write; dX may be dY; the mask is made again from the saved state
/// numerics as the forward
struct DropoutBackward {
  static constexpr const char* name = "dropout_backward";
  static constexpr bool inplace = true;
  View dY, saved, dX;
  double p = 0.5;
  double flops() const { return double(dY.size()); }
  void validate() const { validate_dropout(name, p); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "*");
    v.in("saved", op.saved, "2", Kind::i64);
    v.out("dX", op.dX, "*");
    v.attr("p", op.p);
  }
};

}  // namespace fastdl
