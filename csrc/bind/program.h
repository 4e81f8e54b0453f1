#pragma once
// Program as a Python object: the core's program plus the references that keep its arrays alive.
#include <memory>
#include <vector>

#include "bind/arguments.h"
#include "core/program.h"

namespace fastdl {

class PyProgram {
 public:
  explicit PyProgram(const py::sequence& inputs) : program_(views("Program", inputs)) {
    for (const auto& a : inputs) keep_.push_back(py::reinterpret_borrow<py::object>(a));
  }

  PyProgram(const PyProgram&) = delete;
  ~PyProgram() {
    if (active() == this) stop();
  }

  void begin() {
    if (active()) throw std::runtime_error("Program.begin: this thread is recording already");
    active() = this;
    set_recording(&program_);
  }
  void end() {
    if (active() != this)
      throw std::runtime_error("Program.end: this thread is not recording this program");
    stop();
  }

  /// Keeps the arrays of the call that is being recorded alive for as long as the program lives.
  void keep(const CallArguments& args) {
    for (Py_ssize_t i = 0; i < args.positional + args.keywords(); ++i)
      if (py::detail::npy_api::get().PyArray_Check_(args.values[i]))
        keep_.push_back(py::reinterpret_borrow<py::object>(args.values[i]));
  }

  void run(const py::sequence& inputs) {
    if (active() == this) throw std::runtime_error("Program.run: the program is being recorded");
    if (active()) throw std::runtime_error("Program.run: this thread is recording another program");
    const std::vector<View> bound = views("Program.run", inputs);
    py::gil_scoped_release release;
    program_.run(bound);
  }

  py::list calls() const {
    py::list list;
    for (const auto& c : program_.calls()) {
      py::dict d;
      d["name"] = c.name, d["args"] = c.arguments, d["bytes"] = c.bytes, d["flops"] = c.flops;
      list.append(d);
    }
    return list;
  }
  std::string text() const {
    std::string s;
    for (const auto& c : program_.calls()) s += std::string(c.name) + "(" + c.arguments + ")\n";
    return s;
  }
  size_t size() const { return program_.size(); }

  /// What this thread is recording, or null.
  static PyProgram*& active() {
    static thread_local PyProgram* program = nullptr;
    return program;
  }

 private:
  static void stop() {
    active() = nullptr;
    set_recording(nullptr);
  }
  static std::vector<View> views(const char* who, const py::sequence& inputs) {
    std::vector<View> list;
    for (const auto& a : inputs) {
      list.push_back(read_array(who, "inputs", a.ptr()));
      if (!(py::detail::array_proxy(a.ptr())->flags & py::array::c_style))
        throw std::invalid_argument(std::string(who) +
                                    ": inputs must be C-contiguous; pass a copy");
    }
    return list;
  }

  Program program_;
  std::vector<py::object> keep_;
};

inline void bind_program(py::module_& m) {
  py::class_<PyProgram>(m, "Program", "A recorded sequence of kernel calls that replays natively.")
      .def(py::init<const py::sequence&>(), py::arg("inputs"))
      .def("begin", &PyProgram::begin)
      .def("end", &PyProgram::end)
      .def("abort", &PyProgram::end, "Stops recording; the program is of no further use.")
      .def("run", &PyProgram::run, py::arg("inputs"))
      .def("calls", &PyProgram::calls)
      .def("__len__", &PyProgram::size)
      .def("__str__", &PyProgram::text);
  m.def("recording", [] { return PyProgram::active() != nullptr; });
}

}  // namespace fastdl
