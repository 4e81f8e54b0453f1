// Binds programs, and the function that replays one: the whole way of a captured call.
#include "bind/program.h"

#include <pybind11/stl.h>

#include "bind/guarded.h"

namespace fastdl {
namespace {

PyObject* descriptor(DType t) {
  static PyObject* const known[] = {
      py::dtype::of<float>().release().ptr(),
      py::dtype::of<double>().release().ptr(),
      nullptr,  // bf16
      py::dtype::of<int32_t>().release().ptr(),
      py::dtype::of<int64_t>().release().ptr(),
      py::dtype::of<uint8_t>().release().ptr(),
  };
  return known[int(t)];
}

/// `object.name` and a value: what a replay needs it to be, or what it leaves.
struct State {
  py::object object, name, value;
};

std::vector<State> states(const py::list& list) {
  std::vector<State> found;
  for (const auto& item : list) {
    const auto t = py::cast<py::tuple>(item);
    found.push_back({t[0], t[1], t[2]});
  }
  return found;
}

/// A captured call: guards hold -> bind, run -> Python-side state as the recording left it.
struct Replay {
  py::object owner;  // keeps the program
  PyProgram* program;
  std::vector<State> guards, finals;

  bool holds() const {
    for (const State& g : guards) {
      PyObject* now = PyObject_GetAttr(g.object.ptr(), g.name.ptr());
      if (!now) throw py::error_already_set();
      Py_DECREF(now);
      if (now != g.value.ptr()) return false;
    }
    return true;
  }
  void leave() const {
    for (const State& f : finals)
      if (PyObject_SetAttr(f.object.ptr(), f.name.ptr(), f.value.ptr()) < 0)
        throw py::error_already_set();
  }
  /// Whether these are arrays as they were recorded, ready to be bound.
  bool read(PyObject* const* values, Py_ssize_t n, std::vector<View>* inputs) const {
    const std::vector<View>& slots = program->core().slots();
    if (n != Py_ssize_t(slots.size())) return false;
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (!is_array(values[i])) return false;
      const int flags = py::detail::array_proxy(values[i])->flags;
      constexpr int kPlain =
          py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
      if ((flags & kPlain) != kPlain) return false;
      inputs->push_back(read_array("capture", "inputs", values[i]));
      const View &got = inputs->back(), &want = slots[size_t(i)];
      if (got.dtype != want.dtype || got.rank != want.rank) return false;
      for (int d = 0; d < got.rank; ++d)
        if (got.shape[d] != want.shape[d]) return false;
    }
    return true;
  }

  /// The results: one array, or a list of several; NotImplemented if this is not the recording for
  /// these arrays in this state.
  PyObject* call(PyObject* const* values, Py_ssize_t n) const {
    std::vector<View> inputs;
    if (PyProgram::active() || !read(values, n, &inputs) || !holds()) Py_RETURN_NOTIMPLEMENTED;
    py::list results;
    std::vector<void*> outputs;
    program->new_results(nullptr, &results, &outputs);
    {
      py::gil_scoped_release release;
      program->core().run(inputs, outputs);
    }
    leave();
    return results.size() == 1 ? py::object(results[0]).release().ptr() : results.release().ptr();
  }
};

PyObject* replay(PyObject* self, PyObject* const* values, Py_ssize_t n) {
  return guarded([&] {
    return static_cast<const Replay*>(PyCapsule_GetPointer(self, nullptr))->call(values, n);
  });
}

/// replay(*arrays) -> results | NotImplemented
py::object make_replay(const py::object& program, const py::list& guards, const py::list& finals) {
  static PyMethodDef method = {"replay",
                               reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&replay)),
                               METH_FASTCALL, "replay(*arrays): the results, or NotImplemented"};
  auto* state = new Replay{program, &py::cast<PyProgram&>(program), states(guards), states(finals)};
  const py::capsule self(state, [](void* p) { delete static_cast<Replay*>(p); });
  return py::reinterpret_steal<py::object>(PyCFunction_NewEx(&method, self.ptr(), nullptr));
}

}  // namespace

py::object PyProgram::new_array(const View& like, const int64_t* steps) {
  Py_intptr_t shape[View::kMaxRank + 1];
  int rank = 0;
  if (steps) shape[rank++] = Py_intptr_t(*steps);
  for (int i = 0; i < like.rank; ++i) shape[rank++] = Py_intptr_t(like.shape[i]);
  auto& api = py::detail::npy_api::get();
  PyObject* descr = descriptor(like.dtype);
  Py_INCREF(descr);
  PyObject* a = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, rank, shape, nullptr, nullptr,
                                          0, nullptr);
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
  m.def("make_replay", &make_replay, py::arg("program"), py::arg("guards"), py::arg("finals"));
  m.def("recording", [] { return PyProgram::active() != nullptr; });
}

}  // namespace fastdl
