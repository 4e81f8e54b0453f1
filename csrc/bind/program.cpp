// Binds programs.
#include "bind/program.h"

#include <pybind11/stl.h>

#include "bind/new_array.h"

namespace fastdl {
namespace {

PyObject* descriptor(DType t) {
  if (t == DType::bf16) {
    static PyObject* bf16 = nullptr;  // not set here: the import may let in another thread, to wait
    if (!bf16) bf16 = bfloat16_dtype().release().ptr();
    return bf16;
  }
  static PyObject* const known[] = {
      py::dtype::of<float>().release().ptr(),
      py::dtype::of<double>().release().ptr(),
      nullptr,  // bf16: see above
      py::dtype::of<int32_t>().release().ptr(),
      py::dtype::of<int64_t>().release().ptr(),
      py::dtype::of<uint8_t>().release().ptr(),
  };
  return known[int(t)];
}

}  // namespace

py::object PyProgram::new_array(const View& like, const int64_t* steps) {
  Py_intptr_t shape[View::kMaxRank + 1];
  int rank = 0;
  if (steps) shape[rank++] = Py_intptr_t(*steps);
  for (int i = 0; i < like.rank; ++i) shape[rank++] = Py_intptr_t(like.shape[i]);
  PyObject* a = fastdl::new_array(descriptor(like.dtype), rank, shape);
  if (!a) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(a);
}

void bind_program(py::module_& m) {
  py::class_<PyProgram>(m, "Program", "A recorded sequence of kernel calls that replays natively.")
      .def(py::init<const py::sequence&>(), py::arg("inputs"))
      .def("begin", &PyProgram::begin, py::arg("where") = py::none())
      .def("end", &PyProgram::end, "Stops recording; all memory stays where it is.")
      .def("abort", &PyProgram::abort, "Stops recording and undoes what the calls have written.")
      .def("finish", &PyProgram::finish, py::arg("results"))
      .def("run", &PyProgram::run, py::arg("inputs"))
      .def("run_steps", &PyProgram::run_steps, py::arg("sources"), py::arg("scales"),
           py::arg("order"), py::arg("first"), py::arg("count"), py::arg("schedules"),
           py::arg("stop"))
      .def("calls", &PyProgram::calls)
      .def("memory", &PyProgram::memory)
      .def("written", &PyProgram::written)
      .def("snapshot", &PyProgram::snapshot)
      .def("restore", &PyProgram::restore, py::arg("snapshot"))
      .def("__len__", &PyProgram::size)
      .def("__str__", &PyProgram::text);
  m.def("recording", [] { return PyProgram::active() != nullptr; });
}

}  // namespace fastdl
