#pragma once
// NumPy array -> View, with our own checks: pybind11's array_t would cast silently and costs ~170
// ns for each argument.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "core/contract.h"

namespace fastdl {

namespace py = pybind11;

/// NumPy's descriptor of bfloat16; throws if ml_dtypes, which brings it, is not installed.
inline py::dtype bfloat16_dtype() {
  return py::dtype::from_args(py::module_::import("fastdl._array").attr("bfloat16_dtype")());
}
inline bool is_bfloat16(const py::dtype& d) {
  static PyObject* known = nullptr;
  if (d.ptr() == known) return true;
  if (d.itemsize() != 2 || py::str(d.attr("name")).cast<std::string>() != "bfloat16") return false;
  known = py::object(d).release().ptr();
  return true;
}

/// The dtype of a NumPy descriptor; false for one that has no counterpart or foreign byte order.
inline bool read_dtype(const py::dtype& d, DType* out) {
  const char order = d.byteorder();
  if (order != '=' && order != '|') return false;
  switch (d.kind()) {
    case 'f':
      *out = d.itemsize() == 4 ? DType::f32 : DType::f64;
      return d.itemsize() == 4 || d.itemsize() == 8;
    case 'i':
      *out = d.itemsize() == 4 ? DType::i32 : DType::i64;
      return d.itemsize() == 4 || d.itemsize() == 8;
    case 'u':
      *out = DType::u8;
      return d.itemsize() == 1;
    case 'V':
      *out = DType::bf16;
      return is_bfloat16(d);
    default:
      return false;
  }
}

/// A fast path for the common descriptors by type number; native byte order is implied by identity
/// with NumPy's own descriptor objects, which `read_dtype` checks once for each.
inline bool dtype_of_array(const py::array& a, DType* out) {
  struct Known {
    PyObject* descr;
    DType dtype;
  };
  static const Known known[] = {
      {py::dtype::of<float>().release().ptr(), DType::f32},
      {py::dtype::of<double>().release().ptr(), DType::f64},
      {py::dtype::of<int64_t>().release().ptr(), DType::i64},
      {py::dtype::of<int32_t>().release().ptr(), DType::i32},
  };
  PyObject* descr = py::detail::array_proxy(a.ptr())->descr;
  for (const Known& k : known)
    if (k.descr == descr) {
      *out = k.dtype;
      return true;
    }
  return read_dtype(a.dtype(), out);
}

[[noreturn]] inline void fail_array(const char* op, const char* name, const std::string& got) {
  throw DTypeError(std::string(op) + ": " + name + " must be " + got);
}

/// Reads an argument in place (a View that is returned is copied, right after it was written in
/// smaller pieces); throws DTypeError if it is no NumPy array of a known dtype.
inline void read_array(const char* op, const char* name, PyObject* object, View& v) {
  if (!py::detail::npy_api::get().PyArray_Check_(object))
    fail_array(op, name, std::string("a NumPy array, got ") + Py_TYPE(object)->tp_name);
  const auto a = py::reinterpret_borrow<py::array>(object);
  if (!dtype_of_array(a, &v.dtype))
    fail_array(op, name,
               "an array of float32, float64, bfloat16, int32, int64 or uint8 in native byte "
               "order, got " +
                   std::string(py::str(static_cast<const py::object&>(a.dtype()))));
  const auto* proxy = py::detail::array_proxy(object);
  if (proxy->nd > View::kMaxRank)
    throw std::invalid_argument(std::string(op) + ": " + name + " must have at most " +
                                std::to_string(View::kMaxRank) + " dimensions, got " +
                                std::to_string(proxy->nd) + "; reshape it");
  if (!(proxy->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw std::invalid_argument(std::string(op) + ": " + name +
                                " must be aligned to its item size; pass a copy");
  v.data = proxy->data;
  v.rank = static_cast<int8_t>(proxy->nd);
  v.readonly = !(proxy->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_);
  const int64_t item = size_of(v.dtype);
  const int shift = __builtin_ctzll(uint64_t(item));  // a division takes longer than all the rest
  for (int i = 0; i < v.rank; ++i) {
    v.shape[i] = proxy->dimensions[i];
    v.stride[i] = proxy->strides[i] >> shift;
    if (v.stride[i] * item != proxy->strides[i])
      throw std::invalid_argument(
          std::string(op) + ": " + name +
          " must have strides that are multiples of its item size; pass a copy");
  }
}
inline View read_array(const char* op, const char* name, PyObject* object) {
  View v;
  read_array(op, name, object, v);
  return v;
}

}  // namespace fastdl
