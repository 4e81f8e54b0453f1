// DLPack, the protocol by which array libraries hand each other memory without a copy
// (https://dmlc.github.io/dlpack/latest/): its structs, versions 0 and 1, and both directions.
// Between streams: the consumer says on which stream it will work, and the producer makes that
// stream wait for what is under way.
#include <pybind11/stl.h>

#include <optional>

#include "bind/device_array.h"

namespace fastdl {
namespace {

struct DLDevice {
  int32_t type, id;
};
struct DLDataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t *shape, *strides;  // strides in elements; null: C-contiguous
  uint64_t byte_offset;
};
struct Legacy {
  DLTensor tensor;
  void* context;
  void (*deleter)(Legacy*);
  static constexpr const char *name = "dltensor", *used = "used_dltensor";
};
struct Versioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  uint64_t flags;
  DLTensor tensor;
  static constexpr const char *name = "dltensor_versioned", *used = "used_dltensor_versioned";
};
using Strides = std::vector<py::ssize_t>;

constexpr uint64_t kReadOnly = 1;
constexpr uint32_t kMajor = 1, kMinor = 0;

// kDLCUDA; the emulator's memory is nobody else's business: kDLExtDev, which others refuse.
constexpr int32_t kCuda = 2, kManaged = 13, kExtension = 12;

int32_t type_of(Device device) { return device == Device::cuda ? kCuda : kExtension; }

constexpr uint8_t kInteger = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4;

DLDataType to_dlpack(const py::dtype& dtype) {
  const char kind = dtype.kind();
  const uint8_t code = kind == 'f'   ? kFloat
                       : kind == 'u' ? kUnsigned
                       : kind == 'V' ? kBfloat
                                     : kInteger;
  return {code, uint8_t(8 * dtype.itemsize()), 1};
}
py::dtype from_dlpack(DLDataType t) {
  const int bytes = t.bits / 8;
  if (t.code == kBfloat && t.bits == 16 && t.lanes == 1) return bfloat16_dtype();
  const char* known = t.lanes != 1                                       ? ""
                      : t.code == kFloat && (bytes == 4 || bytes == 8)   ? "f"
                      : t.code == kInteger && (bytes == 4 || bytes == 8) ? "i"
                      : t.code == kUnsigned && bytes == 1                ? "u"
                                                                         : "";
  if (!*known)
    throw DTypeError(
        "from_dlpack: array must be float32, float64, bfloat16, int32, int64 or uint8, got DLPack "
        "type code " +
        std::to_string(t.code) + " of " + std::to_string(t.bits) + " bits");
  return py::dtype(known + std::to_string(bytes));
}

// ---- out ---------------------------------------------------------------------------------------

/// What an exported tensor keeps.
struct Export {
  py::object layout;
  std::vector<int64_t> shape, strides;
};

template <class Managed>
void delete_export(Managed* m) {
  if (Py_IsInitialized()) {  // else the memory goes with the process
    py::gil_scoped_acquire gil;
    delete static_cast<Export*>(m->context);
  }
  delete m;
}

template <class Managed>
void delete_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Managed::name)) return;  // taken over
  auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Managed::name));
  m->deleter(m);
}

template <class Managed>
py::object export_as(const DeviceArray& a, Managed* m) {
  const py::array layout = a.layout;
  auto* e = new Export{layout, {}, {}};
  for (py::ssize_t i = 0; i < layout.ndim(); ++i) {
    e->shape.push_back(layout.shape(i));
    e->strides.push_back(layout.strides(i) / layout.itemsize());
  }
  m->context = e, m->deleter = &delete_export<Managed>;
  m->tensor = {const_cast<void*>(layout.data()),
               {type_of(a.device), 0},
               int32_t(layout.ndim()),
               to_dlpack(layout.dtype()),
               e->shape.data(),
               e->strides.data(),
               0};
  return py::reinterpret_steal<py::object>(
      PyCapsule_New(m, Managed::name, &delete_unused<Managed>));
}

/// The stream that a consumer names: 1 is the legacy default stream, 2 that of the thread, others
/// are handles.  CUDA uses the same numbers.
Stream consumer_stream(const py::object& stream) {
  const auto number = stream.is_none() ? 1 : py::cast<int64_t>(stream);
  if (number == 0 || number < -1)
    throw std::invalid_argument("__dlpack__: stream must be -1, 1, 2 or a handle, got " +
                                std::to_string(number) + ", which is ambiguous");
  return Stream(number);
}

py::object to_capsule(const DeviceArray& a, const py::object& stream, bool versioned) {
  const Stream consumer = consumer_stream(stream);
  if (consumer != Stream(-1)) {
    const Runtime& r = runtime_of(a.device);
    require(a.device, "cannot order streams", r.order(r.stream(), consumer));
  }
  const bool writeable = py::array(a.layout).writeable();
  if (versioned) {
    auto* m = new Versioned{};
    m->major = kMajor, m->minor = kMinor, m->flags = writeable ? 0 : kReadOnly;
    return export_as(a, m);
  }
  if (!writeable)
    throw py::buffer_error("__dlpack__: a read-only array needs a consumer of DLPack 1.0");
  return export_as(a, new Legacy{});
}

// ---- in ----------------------------------------------------------------------------------------

/// A view of foreign memory; `give_back` is called when it has gone and our work with it is done.
DeviceArray foreign_array(Device device, const Runtime& runtime, void* data, const py::dtype& dtype,
                          const Strides& shape, const Strides& strides, bool readonly,
                          std::function<void()> give_back) {
  const py::capsule owner = owner_of([&runtime, give_back = std::move(give_back)] {
    (void)runtime.synchronize(nullptr);
    give_back();
  });
  const py::array layout = array_over(data, dtype, shape, strides, owner);
  if (readonly) layout.attr("flags").attr("writeable") = false;
  return {layout, device};
}

Device device_of(DLDevice d) {
  if (d.type == kExtension) return Device::cuemu;
  if ((d.type == kCuda || d.type == kManaged) && d.id == 0) return Device::cuda;
  throw std::runtime_error(
      "from_dlpack: array must be on the CPU or on the first GPU, got one on device " +
      std::to_string(d.id) + " of DLPack type " + std::to_string(d.type));
}

void check_version(const Legacy&) {}
void check_version(const Versioned& m) {
  if (m.major != kMajor)
    throw std::runtime_error("from_dlpack: DLPack must be of version 1, got " +
                             std::to_string(m.major));
}
bool is_readonly(const Legacy&) { return false; }
bool is_readonly(const Versioned& m) { return m.flags & kReadOnly; }

/// Takes a capsule's tensor over when nothing can go wrong any more: it goes back when our work
/// with it is done.
template <class Managed>
DeviceArray import_as(const py::object& capsule) {
  auto* m = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), Managed::name));
  if (!m) throw py::error_already_set();
  check_version(*m);
  const DLTensor& t = m->tensor;
  const Device device = device_of(t.device);
  const Runtime& runtime = runtime_of(device);
  const py::dtype dtype = from_dlpack(t.dtype);
  const Strides shape(t.shape, t.shape + t.ndim);
  Strides strides = contiguous_strides(shape, dtype.itemsize());
  for (int i = 0; t.strides && i < t.ndim; ++i) strides[i] = t.strides[i] * dtype.itemsize();
  if (PyCapsule_SetName(capsule.ptr(), Managed::used)) throw py::error_already_set();
  return foreign_array(device, runtime, static_cast<char*>(t.data) + t.byte_offset, dtype, shape,
                       strides, is_readonly(*m), [m] {
                         if (m->deleter) m->deleter(m);
                       });
}

DeviceArray from_capsule(const py::object& capsule) {
  return PyCapsule_IsValid(capsule.ptr(), Versioned::name) ? import_as<Versioned>(capsule)
                                                           : import_as<Legacy>(capsule);
}

/// The array of a __cuda_array_interface__: `owner` keeps its memory.
DeviceArray from_interface(const std::string& device_name, uintptr_t pointer, bool readonly,
                           const Strides& shape, const std::optional<Strides>& strides,
                           const py::dtype& dtype, const py::object& stream,
                           const py::object& owner) {
  const Device device = device_named(device_name);
  const Runtime& r = runtime_of(device);
  auto* data = reinterpret_cast<void*>(pointer);
  if (!r.owns(data))
    throw std::runtime_error("from_dlpack: array must be on the first GPU, got another pointer");
  if (!stream.is_none())
    require(device, "cannot order streams", r.order(consumer_stream(stream), r.stream()));
  return foreign_array(device, r, data, dtype, shape,
                       strides ? *strides : contiguous_strides(shape, dtype.itemsize()), readonly,
                       [owner] {});
}

}  // namespace

void bind_dlpack(py::module_& m) {
  m.def(
      "dlpack_device", [](const DeviceArray& a) { return py::make_tuple(type_of(a.device), 0); },
      py::arg("array"));
  m.def(
      "dlpack_name",
      [](int32_t kind, int32_t number) { return to_string(device_of({kind, number})); },
      py::arg("kind"), py::arg("number"));
  m.def("to_dlpack", &to_capsule, py::arg("array"), py::arg("stream"), py::arg("versioned"));
  m.def("from_dlpack", &from_capsule, py::arg("capsule"));
  m.def("from_interface", &from_interface, py::arg("device"), py::arg("pointer"),
        py::arg("readonly"), py::arg("shape"), py::arg("strides"), py::arg("dtype"),
        py::arg("stream"), py::arg("owner"));
}

}  // namespace fastdl
