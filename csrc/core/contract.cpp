#include "core/contract.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "core/backend.h"

namespace fastdl {
namespace {

bool same_shape(const View& a, const View& b) {
  return a.rank == b.rank && std::memcmp(a.shape, b.shape, sizeof(int64_t) * a.rank) == 0;
}

bool is_real(DType t) { return t == DType::f32 || t == DType::f64; }

/// Whether kernels read and write bf16 where the view is.
bool stores_bf16(const View& v) { return !v.on_host() || backend().stores_bf16; }

bool admits(Kind kind, const View& v) {
  const DType t = v.dtype;
  switch (kind) {
    case Kind::real:
      return is_real(t);
    case Kind::stored:
      return is_real(t) || (t == DType::bf16 && stores_bf16(v));
    case Kind::cast:
      return is_real(t) || t == DType::bf16;
    case Kind::index:
      return t == DType::i32 || t == DType::i64;
    case Kind::i64:
      return t == DType::i64;
    case Kind::f64:
      return t == DType::f64;
    case Kind::u8:
      return t == DType::u8;
    case Kind::any:
      return true;
  }
  return false;
}

const char* kind_name(Kind kind, const View& v) {
  switch (kind) {
    case Kind::real:
      return "float32|float64";
    case Kind::stored:
      return stores_bf16(v) ? "float32|float64|bfloat16" : "float32|float64";
    case Kind::cast:
      return "float32|float64|bfloat16";
    case Kind::index:
      return "int32|int64";
    case Kind::i64:
      return "int64";
    case Kind::f64:
      return "float64";
    case Kind::u8:
      return "uint8";
    case Kind::any:
      return "array";
  }
  return "?";
}

std::string shape_text(const View& v) {
  std::string s = "(";
  for (int i = 0; i < v.rank; ++i) s += (i ? ", " : "") + std::to_string(v.shape[i]);
  return s + (v.rank == 1 ? ",)" : ")");
}

bool overlap(const Extent& a, const Extent& b) {
  return a.first < b.last && b.first < a.last && a.first < a.last && b.first < b.last;
}

}  // namespace

bool is_contiguous(const View& v) {
  if (v.size() == 0) return true;
  int64_t expect = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    if (v.shape[i] != 1 && v.stride[i] != expect) return false;
    expect *= v.shape[i];
  }
  return true;
}

bool is_repeated(const View& v) {
  for (int i = 0; i < v.rank; ++i)
    if (v.shape[i] != 1 && v.stride[i] != 0) return false;
  return true;
}

Extent extent(const View& v) {
  const char* lo = static_cast<const char*>(v.data);
  if (v.size() == 0) return {lo, lo};
  const char* hi = lo + size_of(v.dtype);
  for (int i = 0; i < v.rank; ++i) {
    const int64_t reach = (v.shape[i] - 1) * v.stride[i] * size_of(v.dtype);
    (reach < 0 ? lo : hi) += reach;
  }
  return {lo, hi};
}

void fail_value(const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw std::invalid_argument(text);
}

const char* to_string(DType t) {
  switch (t) {
    case DType::f32:
      return "float32";
    case DType::f64:
      return "float64";
    case DType::bf16:
      return "bfloat16";
    case DType::i32:
      return "int32";
    case DType::i64:
      return "int64";
    case DType::u8:
      return "uint8";
  }
  return "?";
}

const char* to_string(Device device) {
  static const char* const names[] = {"cpu", "cuda", "cuemu"};
  return names[int(device)];
}

std::string describe(const View& v) { return v ? to_string(v.dtype) + shape_text(v) : "nothing"; }

void Contract::fail(const char* name, const std::string& want, const View& v) const {
  throw std::invalid_argument(std::string(op_) + ": " + name + " must be " + want + ", got " +
                              describe(v));
}

/// The argument as the contract sees it: "float32(n m)"; before a dtype is bound, the admitted
/// kinds.
std::string Contract::wanted(const View& v, const ArraySpec& spec) const {
  const bool bound = real_ && (spec.kind == Kind::real || spec.kind == Kind::stored);
  const char* dtype = bound                       ? to_string(shared_dtype(spec.kind))
                      : v && admits(spec.kind, v) ? to_string(v.dtype)
                                                  : kind_name(spec.kind, v);
  const std::string dims = spec.dims[0] == '*' ? "..." : spec.dims;
  return std::string(dtype) + "(" + dims + ")";
}

void Contract::array(const char* name, const View& v, const ArraySpec& spec) {
  if (!v) {
    if (!spec.optional) fail(name, wanted(v, spec), v);
    return;
  }
  check_device(name, v);
  check_dtype(name, v, spec);
  check_shape(name, v, spec);
  check_layout(name, v, spec);
  seen_[n_seen_++] = {name, &v, spec.role};
}

void Contract::check_device(const char* name, const View& v) const {
  if (v.device == (n_seen_ ? seen_[0].view->device : v.device)) return;
  throw std::runtime_error(std::string(op_) + ": " + name + " must be on " +
                           to_string(seen_[0].view->device) + ", where " + seen_[0].name +
                           " is, got " + describe(v) + " on " + to_string(v.device) +
                           "; move it by .to(...)");
}

DType Contract::shared_dtype(Kind kind) const {
  return kind == Kind::real ? compute_dtype(real_->dtype) : real_->dtype;
}

void Contract::check_dtype(const char* name, const View& v, const ArraySpec& spec) {
  const bool shares =
      spec.kind == Kind::real || spec.kind == Kind::stored || spec.kind == Kind::any;
  if (admits(spec.kind, v) && !(shares && real_ && shared_dtype(spec.kind) != v.dtype)) {
    if (shares && !real_) real_ = &v, real_name_ = name;
    return;
  }
  std::string text = std::string(op_) + ": " + name + " must be " + wanted(v, spec);
  if (shares && real_)
    text += std::string(real_->dtype == shared_dtype(spec.kind) ? " (the dtype of "
                                                                : " (beside bfloat16 ") +
            real_name_ + ")";
  text += ", got " + describe(v);
  if (spec.kind == Kind::real || spec.kind == Kind::stored)
    text += v.dtype == DType::bf16
                ? "; bfloat16 is stored on devices only, by some operations: use .to(\"float32\")"
                : "; nothing is cast silently, use .astype(...)";
  throw DTypeError(text);
}

void Contract::check_shape(const char* name, const View& v, const ArraySpec& spec) {
  if (spec.dims[0] == '*') {
    if (!star_) {
      star_ = &v, star_name_ = name;
    } else if (!same_shape(*star_, v)) {
      fail(name,
           std::string(to_string(v.dtype)) + shape_text(*star_) + ", the shape of " + star_name_,
           v);
    }
    return;
  }
  int rank = 0;
  for (const char* d = spec.dims; *d; ++d) rank += *d != ' ';
  if (rank != v.rank) fail(name, wanted(v, spec), v);
  int axis = 0;
  for (const char* d = spec.dims; *d; ++d)
    if (*d != ' ') bind(name, *d, v.shape[axis++], v, spec);
}

void Contract::bind(const char* name, char letter, int64_t size, const View& v,
                    const ArraySpec& spec) {
  if (letter >= '0' && letter <= '9') {
    if (size != letter - '0') fail(name, wanted(v, spec), v);
    return;
  }
  for (int i = 0; i < n_dims_; ++i) {
    if (dims_[i].letter != letter) continue;
    if (dims_[i].size != size)
      fail(name,
           wanted(v, spec) + " with " + letter + " = " + std::to_string(dims_[i].size) + " (from " +
               dims_[i].from + ")",
           v);
    return;
  }
  dims_[n_dims_++] = {letter, size, name};
}

void Contract::check_layout(const char* name, const View& v, const ArraySpec& spec) const {
  if (spec.role != Role::in && v.readonly)
    throw std::invalid_argument(std::string(op_) + ": " + name +
                                " must be writeable, got a read-only " + describe(v) +
                                "; pass a writeable array or a copy");
  if (!spec.strided && !is_contiguous(v))
    throw std::invalid_argument(std::string(op_) + ": " + name +
                                " must be C-contiguous, got strides in " + describe(v) +
                                "; use np.ascontiguousarray or a contiguous output");
}

void Contract::check_overlap() const {
  Extent memory[kMaxArrays];
  for (int i = 0; i < n_seen_; ++i) memory[i] = extent(*seen_[i].view);
  for (int i = 0; i < n_seen_; ++i) {
    if (seen_[i].role == Role::in) continue;
    for (int j = 0; j < n_seen_; ++j) {
      if (i == j || !overlap(memory[i], memory[j])) continue;
      const bool same = seen_[i].view->data == seen_[j].view->data && seen_[j].role == Role::in &&
                        same_shape(*seen_[i].view, *seen_[j].view) && is_contiguous(*seen_[j].view);
      if (inplace_ && same) continue;
      throw std::invalid_argument(
          std::string(op_) + ": " + seen_[i].name + " must not share memory with " + seen_[j].name +
          (inplace_ ? " unless it is the same array" : "") + "; pass another output or a copy");
    }
  }
}

}  // namespace fastdl
