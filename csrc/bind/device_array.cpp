#include "bind/device_array.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "bind/gil.h"
#include "bind/guarded.h"
#include "bind/new_array.h"

namespace fastdl {

PyTypeObject* device_array_type = nullptr;

namespace {

using Shape = std::vector<py::ssize_t>;

int64_t bytes_of(const Shape& shape, py::ssize_t item) {
  int64_t bytes = item;
  for (py::ssize_t n : shape) {
    if (n < 0) throw std::invalid_argument("empty: shape must not be negative");
    if (__builtin_mul_overflow(bytes, n, &bytes))
      throw std::invalid_argument("empty: shape must fit into memory");
  }
  return bytes;
}

/// Uninitialised memory from `allocate`, as an ndarray that hands it back to `release`.
py::array owned_array(Device device, const Shape& shape, const py::dtype& dtype,
                      Failure (*allocate)(void**, int64_t), void (*release)(void*)) {
  const int64_t bytes = bytes_of(shape, dtype.itemsize());
  void* data = nullptr;
  const std::string what = "cannot allocate " + std::to_string(bytes) + " bytes";
  require(device, what.c_str(), allocate(&data, bytes));
  const py::capsule owner = owner_of([release, data] { release(data); });
  return array_over(data, dtype, shape, contiguous_strides(shape, dtype.itemsize()), owner);
}

DeviceArray empty_on(Device device, const Shape& shape, const py::dtype& dtype) {
  const Runtime& r = runtime_of(device);
  return {owned_array(device, shape, dtype, r.allocate, r.release), device};
}

Device other_device(const std::string& name) {
  const Device device = device_named(name);
  if (device == Device::cpu) throw std::invalid_argument("device: must not be cpu, got 'cpu'");
  return device;
}

/// A view that NumPy makes of the layout.
template <class... A>
DeviceArray view_by(const DeviceArray& a, const char* method, A&&... args) {
  return {a.layout.attr(method)(std::forward<A>(args)...), a.device};
}

DeviceArray reshaped(const DeviceArray& a, const py::args& shape) {
  if (!py::cast<bool>(a.layout.attr("flags").attr("c_contiguous")))
    throw std::runtime_error("reshape: array must be C-contiguous");  // else NumPy would copy
  return view_by(a, "reshape", *shape);
}

/// a[key], where even an integer for every dimension gives a view: by "..." at its end.
DeviceArray item(const DeviceArray& a, const py::object& key) {
  const py::object keys = py::isinstance<py::tuple>(key) ? key : py::make_tuple(key);
  const bool whole = keys.contains(py::ellipsis());
  return view_by(a, "__getitem__", whole ? keys : keys + py::make_tuple(py::ellipsis()));
}

DeviceArray strided(const DeviceArray& a, const Shape& shape, const Shape& strides) {
  const py::array base = a.layout;
  return {array_over(const_cast<void*>(base.data()), base.dtype(), shape, strides, base), a.device};
}

/// Both must be C-contiguous and of one size in bytes.
void copy_bytes(Device device, const py::array& from, const py::array& to, Direction direction) {
  if (!(from.flags() & to.flags() & py::array::c_style) || from.nbytes() != to.nbytes())
    throw std::invalid_argument("copy: arrays must be C-contiguous and of one size");
  const Runtime& r = runtime_of(device);
  void* target = const_cast<void*>(to.data());
  require(device, "cannot copy", r.copy(target, from.data(), from.nbytes(), direction));
}

void write(const DeviceArray& a, const py::array& values, bool non_blocking) {
  copy_bytes(a.device, values, a.layout, Direction::to_device);
  if (non_blocking) return;
  const WithoutGil released;
  require(a.device, "an earlier call failed", runtime_of(a.device).synchronize(nullptr));
}

py::array to_host(const DeviceArray& a) {
  const py::array layout = a.layout;
  const py::array host(layout.dtype(), Shape(layout.shape(), layout.shape() + layout.ndim()));
  copy_bytes(a.device, layout, host, Direction::to_host);
  const WithoutGil released;
  synchronize(a.device);
  return host;
}

/// A tuple of sizes, or the size of the only axis.
Shape read_shape(PyObject* o) {
  if (!PyTuple_Check(o)) return {PyNumber_AsSsize_t(o, PyExc_OverflowError)};
  Shape shape(size_t(PyTuple_GET_SIZE(o)));
  for (size_t i = 0; i < shape.size(); ++i)
    shape[i] = PyNumber_AsSsize_t(PyTuple_GET_ITEM(o, Py_ssize_t(i)), PyExc_OverflowError);
  return shape;
}

/// empty(like, shape, dtype): where `like` is, an ndarray or a DeviceArray.
PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return guarded([&]() -> PyObject* {
    if (n != 3) throw DTypeError("empty: takes like, shape and dtype");
    const Shape shape = read_shape(args[1]);
    if (PyErr_Occurred()) throw py::error_already_set();
    if (Py_TYPE(args[0]) == device_array_type) {
      const Device device = py::cast<const DeviceArray&>(py::handle(args[0])).device;
      const auto dtype = py::reinterpret_borrow<py::dtype>(args[2]);
      return py::cast(empty_on(device, shape, dtype)).release().ptr();
    }
    if (!py::isinstance<py::dtype>(args[2])) throw DTypeError("empty: dtype must be a numpy.dtype");
    return new_array(args[2], int(shape.size()),
                     reinterpret_cast<const Py_intptr_t*>(shape.data()));
  });
}

py::dict cuda_status() {
  const CudaLibrary& library = cuda_library();
  py::dict d;
  d["built"] = library.runtime != nullptr;
  d["library"] = library.path;
  py::list devices;
  std::string problem = library.problem;
  if (const Runtime* r = library.runtime) {
    const DeviceStatus s = r->status();
    d["architectures"] = r->architectures, d["toolkit"] = s.toolkit, d["driver"] = s.driver;
    if (s.problem) problem = s.problem;
    for (int i = 0; i < s.devices; ++i) {
      DeviceProperties p;
      require(Device::cuda, "cannot read properties", r->properties(i, &p));
      py::dict device;
      device["name"] = p.name, device["capability"] = py::make_tuple(p.major, p.minor);
      device["multiprocessors"] = p.multiprocessors, device["memory_bytes"] = p.memory_bytes;
      devices.append(device);
    }
  }
  d["devices"] = devices;
  d["problem"] = problem.empty() ? py::object(py::none()) : py::str(problem);
  return d;
}

void bind_class(py::module_& m) {
  py::class_<DeviceArray> c(m, "DeviceArray", py::is_final());
  for (const char* name :
       {"shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags"})
    c.def_property_readonly(name, py::cpp_function([name](const DeviceArray& a) {
                              return py::object(a.layout.attr(name));
                            }));
  c.def_property_readonly("device", [](const DeviceArray& a) { return to_string(a.device); })
      .def_property_readonly("pointer",
                             [](const DeviceArray& a) {
                               return reinterpret_cast<uintptr_t>(py::array(a.layout).data());
                             })
      .def("__len__", [](const DeviceArray& a) { return py::len(a.layout); })
      .def("__getitem__", &item)
      .def("reshape", &reshaped)
      .def("transpose", [](const DeviceArray& a,
                           const py::object& axes) { return view_by(a, "transpose", axes); })
      .def("strided", &strided, py::arg("shape"), py::arg("strides"))
      .def("write", &write, py::arg("values"), py::arg("non_blocking"))
      .def("numpy", &to_host);
  device_array_type = reinterpret_cast<PyTypeObject*>(c.ptr());
}

}  // namespace

py::array array_over(void* data, const py::dtype& dtype, const std::vector<py::ssize_t>& shape,
                     const std::vector<py::ssize_t>& strides, const py::object& owner) {
  return py::array(dtype, shape, strides, data, owner);
}

std::vector<py::ssize_t> contiguous_strides(const std::vector<py::ssize_t>& shape,
                                            py::ssize_t item) {
  Shape strides(shape.size());
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = item;
    item *= std::max<py::ssize_t>(shape[i], 1);
  }
  return strides;
}

py::capsule owner_of(std::function<void()> release) {
  auto* held = new std::function<void()>(std::move(release));
  return py::capsule(held, [](void* p) {
    const std::unique_ptr<std::function<void()>> f(static_cast<std::function<void()>*>(p));
    (*f)();
  });
}

void bind_device_arrays(py::module_& m) {
  bind_class(m);
  static PyMethodDef method = {
      "empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&empty)), METH_FASTCALL,
      "empty(like, shape, dtype): an uninitialised array where `like` is"};
  const py::object module_name = m.attr("__name__");
  m.add_object("empty", py::reinterpret_steal<py::object>(
                            PyCFunction_NewEx(&method, m.ptr(), module_name.ptr())));
  m.def(
      "empty_on",
      [](const std::string& device, const Shape& shape, const py::dtype& dtype) {
        return empty_on(other_device(device), shape, dtype);
      },
      py::arg("device"), py::arg("shape"), py::arg("dtype"));
  m.def(
      "pinned_empty",
      [](const std::string& name, const Shape& shape, const py::dtype& dtype) {
        const Device device = other_device(name);
        const Runtime& r = runtime_of(device);
        return owned_array(device, shape, dtype, r.allocate_pinned, r.release_pinned);
      },
      py::arg("device"), py::arg("shape"), py::arg("dtype"));
  m.def(
      "device_named", [](const std::string& name) { return to_string(device_named(name)); },
      py::arg("name"));
  m.def(
      "synchronize", [](const std::string& name) { synchronize(other_device(name)); },
      py::arg("device"), py::call_guard<WithoutGil>());
  m.def(
      "stream", [](const std::string& name) { return runtime_of(other_device(name)).stream(); },
      py::arg("device"));
  m.def("cuda_status", &cuda_status);
}

}  // namespace fastdl
