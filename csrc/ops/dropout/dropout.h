#pragma once
#include "core/op.h"

namespace fastdl {

/// Throws unless p is a probability and the activation one whose output shows what was dropped.
FASTDL_INLINE void validate_dropout(const char* op, double p, Activation activation) {
  if (activation == Activation::tanh)
    fail_value("%s: activation must be none or relu, got tanh", op);
  if (!(p >= 0 && p <= 1)) fail_value("%s: p must be in [0, 1], got %g", op, p);
}

/// Y_i = act(X_i) / (1 - p) where element i is kept, else 0
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
  Activation activation = Activation::none;
  double flops() const { return double(X.size()); }
  void validate() const { validate_dropout(name, p, activation); }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("X", op.X, "*");
    v.inout("state", op.state, "2", Kind::i64);
    v.out("Y", op.Y, "*");
    v.out("saved", op.saved, "2", Kind::i64);
    v.attr("p", op.p);
    v.attr("activation", op.activation);
  }
};

/// dX_i = dY_i act'(X_i) / (1 - p) where the forward pass kept element i, else 0
///                                                       dY (*)  saved (2)?  Y (*)?  ->  dX (*)
/// Without activation the mask is made again from the saved state.  After relu it is where Y > 0, so
/// that Y stands for mask and derivative, and no random numbers are made.
/// cost     1 read, 1 write, after relu 2 and 1; dX may be dY
/// numerics one product; after relu 0 where Y <= 0, and where Y is NaN dY / (1 - p) goes through
struct DropoutBackward {
  static constexpr const char* name = "dropout_backward";
  static constexpr bool inplace = true;
  View dY, saved, Y, dX;
  double p = 0.5;
  Activation activation = Activation::none;
  double flops() const { return double(dY.size()); }
  void validate() const {
    validate_dropout(name, p, activation);
    if (activation == Activation::none && !saved)
      fail_value("dropout_backward: saved must be given when there is no activation, got nothing");
    if (activation != Activation::none && !Y)
      fail_value(
          "dropout_backward: Y must be the output of the forward pass when there is an activation, "
          "got nothing");
  }
  template <class Self, class V>
  static void visit(Self& op, V& v) {
    v.in("dY", op.dY, "*");
    v.opt("saved", op.saved, "2", Kind::i64);
    v.opt("Y", op.Y, "*");
    v.out("dX", op.dX, "*");
    v.attr("p", op.p);
    v.attr("activation", op.activation);
  }
};

}  // namespace fastdl
