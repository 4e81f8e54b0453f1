#pragma once
// Arrays on a device, for Python.
#include <functional>
#include <vector>

#include "bind/array.h"
#include "core/device.h"

namespace fastdl {

/// Elements on a device.  What NumPy knows of shapes, strides and views holds for them too: `layout`
/// is an ndarray over the device's memory, of which only views are made; the host never touches an
/// element.  Its base keeps the memory alive.
struct DeviceArray {
  py::object layout;
  Device device;
};

/// Set when the module is made; no class is derived from it.
extern PyTypeObject* device_array_type;

/// Reads an argument of an op: an ndarray or a DeviceArray.
inline void read_argument(const char* op, const char* name, PyObject* object, View& v) {
  if (Py_TYPE(object) != device_array_type) return read_array(op, name, object, v);
  const auto& array = py::cast<const DeviceArray&>(py::handle(object));
  read_array(op, name, array.layout.ptr(), v);
  v.device = array.device;
}

/// An ndarray of foreign memory that `owner` keeps alive.
py::array array_over(void* data, const py::dtype& dtype, const std::vector<py::ssize_t>& shape,
                     const std::vector<py::ssize_t>& strides, const py::object& owner);
/// A Python object that calls `release` when it goes.
py::capsule owner_of(std::function<void()> release);

/// The default strides of a shape, in bytes.
std::vector<py::ssize_t> contiguous_strides(const std::vector<py::ssize_t>& shape,
                                            py::ssize_t item);

void bind_device_arrays(py::module_& m);
void bind_dlpack(py::module_& m);

}  // namespace fastdl
