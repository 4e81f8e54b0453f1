// The functions that replay: the whole way of a captured call, without going back to Python.
#include <pybind11/stl.h>

#include "bind/gil.h"
#include "bind/guarded.h"
#include "bind/program.h"
#include "core/replicas.h"

namespace fastdl {
namespace {

/// `object.name` and a value: what a replay needs it to be, or what it leaves.
struct State {
  py::object object, name, value;
};

std::vector<State> states(const py::handle& list) {
  std::vector<State> found;
  for (const auto& item : py::cast<py::list>(list)) {
    const auto t = py::cast<py::tuple>(item);
    found.push_back({t[0], t[1], t[2]});
  }
  return found;
}

/// One recording: its program, the guards that must hold, and the state that it leaves.
struct Member {
  py::object owner;  // keeps the program
  PyProgram* program;
  std::vector<State> guards, finals;

  Member(const py::object& program, const py::handle& guards, const py::handle& finals)
      : owner(program),
        program(&py::cast<PyProgram&>(program)),
        guards(states(guards)),
        finals(states(finals)) {}

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
};

/// Whether `got` is the slot `want`, with a leading dimension of `members` unless that is 0.
bool fits(const View& got, const View& want, int64_t members) {
  const int lead = members ? 1 : 0;
  if (got.dtype != want.dtype || got.rank != want.rank + lead) return false;
  if (members && got.shape[0] != members) return false;
  int64_t expect = 1;
  bool contiguous = true;
  for (int d = want.rank - 1; d >= 0; --d) {
    if (got.shape[d + lead] != want.shape[d]) return false;
    contiguous = contiguous && (want.shape[d] == 1 || got.stride[d + lead] == expect);
    expect *= want.shape[d];
  }
  return contiguous || expect == 0;
}

/// Reads the arguments of a replay; false if they are not arrays as they were recorded.
bool read(const Program& program, PyObject* const* values, Py_ssize_t n, int64_t members,
          std::vector<View>* inputs) {
  const std::vector<View>& slots = program.slots();
  if (n != Py_ssize_t(slots.size())) return false;
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!is_array(values[i])) return false;
    if (!(py::detail::array_proxy(values[i])->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
      return false;
    inputs->push_back(read_array("capture", "inputs", values[i]));
    if (!fits(inputs->back(), slots[size_t(i)], members)) return false;
  }
  return true;
}

template <class T>
PyObject* make_function(PyMethodDef* method, T* state) {
  const py::capsule self(state, [](void* p) { delete static_cast<T*>(p); });
  return PyCFunction_NewEx(method, self.ptr(), nullptr);
}

// ---- one program -------------------------------------------------------------------------------

PyObject* call_one(const Member& m, PyObject* const* values, Py_ssize_t n) {
  std::vector<View> inputs;
  Program& program = m.program->core();
  if (PyProgram::active() || !read(program, values, n, 0, &inputs) || !m.holds())
    Py_RETURN_NOTIMPLEMENTED;
  py::list results;
  std::vector<void*> outputs;
  m.program->new_results(nullptr, &results, &outputs);
  {
    const WithoutGil released;
    program.run(std::move(inputs), std::move(outputs));
  }
  m.leave();
  return results.size() == 1 ? py::object(results[0]).release().ptr() : results.release().ptr();
}

PyObject* replay(PyObject* self, PyObject* const* values, Py_ssize_t n) {
  return guarded([&] {
    return call_one(*static_cast<const Member*>(PyCapsule_GetPointer(self, nullptr)), values, n);
  });
}

PyMethodDef replay_method = {"replay",
                             reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&replay)),
                             METH_FASTCALL, "replay(*arrays): the results, or NotImplemented"};

// ---- a population ------------------------------------------------------------------------------

struct Population {
  std::vector<Member> members;

  std::vector<Program*> programs() const {
    std::vector<Program*> list;
    for (const Member& m : members) list.push_back(&m.program->core());
    return list;
  }
  bool holds() const {
    for (const Member& m : members)
      if (!m.holds()) return false;
    return true;
  }
  void leave() const {
    for (const Member& m : members) m.leave();
  }
};

/// The part of a stacked array that belongs to member `i`.
View part(const View& stacked, int64_t i) {
  View v = stacked;
  v.data = stacked.as<char>() + i * stacked.stride[0] * size_of(stacked.dtype);
  v.rank = static_cast<int8_t>(stacked.rank - 1);
  for (int d = 0; d < v.rank; ++d)
    v.shape[d] = stacked.shape[d + 1], v.stride[d] = stacked.stride[d + 1];
  return v;
}

/// New arrays (members, ...) for the results, and the addresses of each member's part.
py::list stacked_results(const Population& p, const int64_t* steps,
                         std::vector<std::vector<void*>>* outputs) {
  py::list arrays;
  outputs->resize(p.members.size());
  const auto members = int64_t(p.members.size());
  for (const View& v : p.members[0].program->core().results()) {
    View like = v;
    if (steps) {
      if (v.rank == View::kMaxRank)
        throw std::invalid_argument("run: results must have at most 5 dimensions, got 6");
      like.rank = static_cast<int8_t>(v.rank + 1);
      like.shape[0] = *steps;
      for (int d = 0; d < v.rank; ++d) like.shape[d + 1] = v.shape[d];
    }
    py::object a = PyProgram::new_array(like, &members);
    char* data = py::detail::array_proxy(a.ptr())->data;
    for (auto& member : *outputs) member.push_back(data), data += like.bytes();
    arrays.append(std::move(a));
  }
  return arrays;
}

PyObject* call_all(const Population& p, PyObject* const* values, Py_ssize_t n) {
  std::vector<View> stacked;
  const auto members = int64_t(p.members.size());
  if (PyProgram::active() || !read(p.members[0].program->core(), values, n, members, &stacked) ||
      !p.holds())
    Py_RETURN_NOTIMPLEMENTED;
  std::vector<std::vector<View>> inputs(p.members.size());
  for (int64_t i = 0; i < members; ++i)
    for (const View& v : stacked) inputs[size_t(i)].push_back(part(v, i));
  std::vector<std::vector<void*>> outputs;
  py::list results = stacked_results(p, nullptr, &outputs);
  {
    const WithoutGil released;
    run_replicas(p.programs(), inputs, outputs);
  }
  p.leave();
  return results.release().ptr();
}

PyObject* replay_all(PyObject* self, PyObject* const* values, Py_ssize_t n) {
  return guarded([&] {
    return call_all(*static_cast<const Population*>(PyCapsule_GetPointer(self, nullptr)), values,
                    n);
  });
}

PyMethodDef replay_all_method = {
    "replay_all", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&replay_all)),
    METH_FASTCALL, "replay_all(*stacked): the stacked results, or NotImplemented"};

Population* population(const py::list& members) {
  auto p = std::make_unique<Population>();
  for (const auto& item : members) {
    const auto t = py::cast<py::tuple>(item);
    p->members.emplace_back(py::object(t[0]), t[1], t[2]);
  }
  check_apart(p->programs());
  return p.release();
}

/// `steps`: for each program its sources, scales, order, first row, count and schedules.
py::list run_all(const py::list& programs, const py::list& steps, int64_t count) {
  Population p;
  std::vector<Program::Steps> all;
  for (size_t i = 0; i < programs.size(); ++i) {
    p.members.emplace_back(py::object(programs[i]), py::list(), py::list());
    const auto t = py::cast<py::tuple>(steps[i]);
    all.push_back(p.members.back().program->read_steps(
        py::cast<py::sequence>(t[0]), py::cast<std::vector<double>>(t[1]), py::object(t[2]),
        py::cast<int64_t>(t[3]), count, py::cast<py::list>(t[4])));
  }
  std::vector<std::vector<void*>> outputs;
  py::list results = stacked_results(p, &count, &outputs);
  for (size_t i = 0; i < all.size(); ++i) all[i].outputs = outputs[i];
  const WithoutGil released;
  run_replicas(p.programs(), all);
  return results;
}

}  // namespace

void bind_replay(py::module_& m) {
  m.def(
      "make_replay",
      [](const py::object& program, const py::list& guards, const py::list& finals) {
        return py::reinterpret_steal<py::object>(
            make_function(&replay_method, new Member(program, guards, finals)));
      },
      py::arg("program"), py::arg("guards"), py::arg("finals"));
  m.def(
      "make_replay_all",
      [](const py::list& members) {
        return py::reinterpret_steal<py::object>(
            make_function(&replay_all_method, population(members)));
      },
      py::arg("members"));
  m.def("run_all", &run_all, py::arg("programs"), py::arg("steps"), py::arg("count"));
}

}  // namespace fastdl
