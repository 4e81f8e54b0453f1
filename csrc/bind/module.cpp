// The Python module.  It does not grow with ops: each is bound from its own description.
#include <pybind11/stl.h>

#include "bind/arguments.h"
#include "bind/gil.h"
#include "bind/guarded.h"
#include "bind/program.h"
#include "core/bf16.h"
#include "core/block_pool.h"
#include "core/cache.h"
#include "core/ceilings.h"
#include "core/launch.h"
#include "core/parallel.h"
#include "ops.def"

namespace fastdl {
namespace {

/// Releasing the GIL costs ~20 ns; it pays when other Python threads would wait for several us.
/// In bytes, at roughly 20 bytes (80 flop) per nanosecond.
constexpr double kReleaseGilBytes = 100e3;

/// The Python function of an op: read the arguments, then go through the one door.
template <class Op>
PyObject* entry(PyObject*, PyObject* const* values, Py_ssize_t n, PyObject* names) {
  return guarded([&]() -> PyObject* {
    const CallArguments args{Op::name, values, n, names};
    const Op op = read_call<Op>(args);
    const Device device = check_and_record(op);
    if (PyProgram* p = PyProgram::active()) p->keep(args);
    if (device != Device::cpu) {
      enqueue(op, device);
    } else if (double(traffic_bytes(op)) + flops_of(op) / 4 < kReleaseGilBytes) {
      run(op);
    } else {
      const WithoutGil released;
      run(op);
    }
    Py_RETURN_NONE;
  });
}

template <class Op>
void bind(py::module_& m) {
  Op proto{};
  SignatureText signature;
  Op::visit(proto, signature);
  static const std::string doc = std::string(Op::name) + "(" + signature.text + ")";
  static PyMethodDef method = {
      Op::name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<Op>)),
      METH_FASTCALL | METH_KEYWORDS, doc.c_str()};
  const py::object module_name = m.attr("__name__");
  m.add_object(Op::name, py::reinterpret_steal<py::object>(
                             PyCFunction_NewEx(&method, m.ptr(), module_name.ptr())));
}

void bind_ops(py::module_& m) {
#define FASTDL_OP(Op, op) bind<Op>(m);
#include "ops.def"
#undef FASTDL_OP
}

/// Kernel name -> its arguments, in call order.
py::dict signatures() {
  py::dict all;
#define FASTDL_OP(Op, op)   \
  {                         \
    Op proto{};             \
    Signature s;            \
    Op::visit(proto, s);    \
    all[Op::name] = s.list; \
  }
#include "ops.def"
#undef FASTDL_OP
  return all;
}

constexpr const char* kBf16Units[] = {"fma", "dot", "amx"};

void use_bf16_unit_named(const std::string& most) {
  for (int i = 0; i < 3; ++i)
    if (most == kBf16Units[i]) return use_bf16_unit(Bf16Unit(i));
  throw std::invalid_argument("use_bf16_unit: most must be fma, dot or amx, got '" + most + "'");
}

py::dict config() {
  py::dict d;
  d["backend"] = backend().name;
  d["backends"] = supported_backends();
  d["compiled_backends"] = compiled_backends();
  d["num_threads"] = num_threads();
  d["work_per_thread"] = work_per_thread();
  d["bf16_unit"] = kBf16Units[int(bf16_unit())];
  d["stream_bytes"] = stream_bytes();
  d["pool_bytes"] = pool_bytes();
  d["pooled_bytes"] = pooled_bytes();
  d["compiler"] = __VERSION__;
  return d;
}

py::dict ceilings() {
  Ceilings c;
  {
    const WithoutGil released;
    c = measure_ceilings();
  }
  py::dict d;
  d["float32"] = c.f32_flops, d["float64"] = c.f64_flops;
  py::list copies;
  for (const auto& copy : c.copies) copies.append(py::make_tuple(copy.bytes, copy.rate));
  d["copies"] = copies;
  return d;
}

}  // namespace
}  // namespace fastdl

PYBIND11_MODULE(_core, m) {
  namespace py = pybind11;
  using namespace fastdl;
  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const DTypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  bind_ops(m);
  bind_device_arrays(m);
  bind_dlpack(m);
  bind_program(m);
  bind_replay(m);
  m.def("op_names", [] { return py::list(signatures().attr("keys")()); });
  m.def("signatures", &signatures);
  m.def("backend", [] { return backend().name; });
  m.def("backends", &supported_backends);
  m.def("all_backends", &compiled_backends);
  m.def("kernels", &kernels_of, py::arg("backend"));
  m.def("use_backend", &use_backend, py::arg("name"));
  m.def("get_num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("set_work_per_thread", &set_work_per_thread, py::arg("n"));
  m.def("use_bf16_unit", &use_bf16_unit_named, py::arg("most"));
  m.def("set_stream_bytes", &set_stream_bytes, py::arg("n"));
  m.def("set_pool_bytes", &set_pool_bytes, py::arg("n_bytes"),
        "Sets how much memory of dead arrays is kept for new ones; 0 for none.");
  m.def("empty_pool", &empty_pool, "Returns the memory of dead arrays to the system.");
  m.def("config", &config);
  m.def("ceilings", &ceilings, "Measures what one thread can do at best: flop and bytes a second.");
}
