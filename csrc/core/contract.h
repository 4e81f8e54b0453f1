#pragma once
// Reads an op's own description (Op::visit) and checks real arguments against it.
#include <stdexcept>
#include <string>

#include "core/op.h"

namespace fastdl {

/// A wrong dtype (TypeError in Python); wrong shapes and values are std::invalid_argument.
struct DTypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const char* to_string(DType t);
const char* to_string(Device device);
std::string describe(const View& v);  // "float32(2, 3)"

bool is_contiguous(const View& v);
/// Whether every element is the same one: all strides are 0.
bool is_repeated(const View& v);

/// The memory that a view may touch: [first, last), empty for an empty view.
struct Extent {
  const char *first, *last;
};
Extent extent(const View& v);

/// Binds each dimension letter the first time it is seen; every later use must agree.
class Contract : public Visitor<Contract> {
 public:
  Contract(const char* op, bool inplace) : op_(op), inplace_(inplace) {}

  void array(const char* name, const View& v, const ArraySpec& spec);
  template <class T>
  void attr(const char*, const T&) {}

  /// No output may share memory with another argument (element-wise ops may write over an input).
  void check_overlap() const;
  /// Where the arguments are: all on one device.
  Device device() const { return n_seen_ ? seen_[0].view->device : Device::cpu; }

 private:
  struct Dim {
    char letter;
    int64_t size;
    const char* from;
  };
  struct Seen {
    const char* name;
    const View* view;
    Role role;
  };
  static constexpr int kMaxDims = 8, kMaxArrays = 16;

  void check_device(const char* name, const View& v) const;
  void check_dtype(const char* name, const View& v, const ArraySpec& spec);
  void check_shape(const char* name, const View& v, const ArraySpec& spec);
  void check_layout(const char* name, const View& v, const ArraySpec& spec) const;
  /// What an argument that shares a dtype must have, once it is bound.
  DType shared_dtype(Kind kind) const;
  void bind(const char* name, char letter, int64_t size, const View& v, const ArraySpec& spec);
  std::string wanted(const View& v, const ArraySpec& spec) const;
  [[noreturn]] void fail(const char* name, const std::string& want, const View& v) const;

  const char* op_;
  bool inplace_;
  Dim dims_[kMaxDims];
  int n_dims_ = 0;
  Seen seen_[kMaxArrays];
  int n_seen_ = 0;
  const View* star_ = nullptr;  // the first "*" argument
  const char* star_name_ = nullptr;
  const View* real_ = nullptr;  // the first float argument
  const char* real_name_ = nullptr;
};

/// An op may declare `static constexpr bool inplace = true`: an output may be one of its inputs.
template <class Op>
constexpr bool allows_inplace() {
  if constexpr (requires { Op::inplace; }) return Op::inplace;
  return false;
}

/// Throws unless the arguments keep the op's contract; returns the device they are on.  An op may
/// add `void validate() const` for what dims cannot say (labels in range, attribute values); it must
/// not look at elements that are not `on_host`: see core/fault.h.
template <class Op>
Device check(const Op& op) {
  Contract c(Op::name, allows_inplace<Op>());
  Op::visit(op, c);
  c.check_overlap();
  if constexpr (requires { op.validate(); }) op.validate();
  return c.device();
}

/// Bytes an op must move at least once: the roofline denominator, derived rather than typed by
/// hand.
struct Traffic : Visitor<Traffic> {
  int64_t bytes = 0;
  void array(const char*, const View& v, const ArraySpec& spec) {
    int64_t once = v.bytes();
    for (int i = 0; i < v.rank; ++i)  // a broadcast axis is read once
      if (v.stride[i] == 0 && v.shape[i] > 1) once /= v.shape[i];
    bytes += once * (spec.role == Role::inout ? 2 : 1);
  }
  template <class T>
  void attr(const char*, const T&) {}
};
template <class Op>
int64_t traffic_bytes(const Op& op) {
  Traffic t;
  Op::visit(op, t);
  return t.bytes;
}

}  // namespace fastdl
