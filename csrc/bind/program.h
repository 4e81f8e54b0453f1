#pragma once
// Program as a Python object: the core's program plus the references that keep its arrays alive.
#include <chrono>
#include <memory>
#include <unordered_map>
#include <vector>

#include "bind/arguments.h"
#include "bind/gil.h"
#include "core/program.h"

namespace fastdl {

inline bool is_array(PyObject* o) { return py::detail::npy_api::get().PyArray_Check_(o); }

class PyProgram {
 public:
  explicit PyProgram(const py::sequence& inputs) : program_(views("Program", inputs)) {
    for (const auto& a : inputs) keep_.push_back(py::reinterpret_borrow<py::object>(a));
  }

  PyProgram(const PyProgram&) = delete;
  ~PyProgram() {
    if (active() == this) stop();
  }

  // ---- recording --------------------------------------------------------------------------------

  /// `where`: called without arguments for each recorded call, returns the user's line.
  void begin(py::object where) {
    if (active()) throw std::runtime_error("Program.begin: this thread is recording already");
    where_ = std::move(where);
    active() = this;
    set_recording(&program_);
  }
  void end() {
    require_active("end");
    stop();
    program_.keep_changes();
  }
  void abort() {
    require_active("abort");
    stop();
    program_.undo();
  }

  /// Keeps the arrays of the call that is being recorded alive for as long as the program lives.
  void keep(const CallArguments& args) {
    std::vector<MemoryBlock> fresh;
    for (Py_ssize_t i = 0; i < args.positional + args.keywords(); ++i) {
      if (!is_array(args.values[i])) continue;
      keep_.push_back(py::reinterpret_borrow<py::object>(args.values[i]));
      // Operations make their outputs anew, as arrays of their own; what outlives a step and is
      // overwritten whole is a view into an arena, or a user's `out`, which ops/_call.py saves.
      const auto a = py::reinterpret_borrow<py::array>(args.values[i]);
      if (!py::detail::array_proxy(a.ptr())->base)
        fresh.push_back({static_cast<char*>(const_cast<void*>(a.data())), int64_t(a.nbytes())});
    }
    program_.save_outputs(fresh);
    if (!where_.is_none()) program_.annotate(py::cast<std::string>(where_()));
  }

  /// Ends the recording: memory that only this program refers to becomes its own.  `results` are
  /// arrays that nobody else holds any more.  Returns (array, user's line) for those that a call
  /// reads though none wrote them and nobody holds them: what they contain would be frozen.
  py::list finish(const py::list& results) {
    require_active("finish");
    stop();
    for (const auto& a : results) keep_.push_back(py::reinterpret_borrow<py::object>(a));
    std::vector<MemoryBlock> owned;
    std::vector<PyObject*> owners;
    find_owned(results, &owned, &owners);
    py::list frozen;
    for (const auto& f : program_.finish(owned, views("Program.finish", results)))
      frozen.append(py::make_tuple(py::reinterpret_borrow<py::object>(owners[f.block]), f.where));
    release(owned);
    return frozen;
  }

  // ---- replay -----------------------------------------------------------------------------------

  py::list run(const py::sequence& inputs) {
    refuse_recording("run");
    std::vector<View> bound = views("Program.run", inputs);
    py::list results;
    std::vector<void*> outputs;
    new_results(nullptr, &results, &outputs);
    {
      const WithoutGil released;
      program_.run(std::move(bound), std::move(outputs));
    }
    return results;
  }

  Program::Steps read_steps(const py::sequence& sources, const std::vector<double>& scales,
                            const py::object& order, int64_t first, int64_t count,
                            const py::list& schedules) const {
    refuse_recording("run_steps");
    Program::Steps s;
    s.sources = views("Program.run_steps", sources);
    s.scales = scales, s.first = first, s.count = count;
    if (scales.size() != s.sources.size())
      throw std::invalid_argument("Program.run_steps: scales must be one for each source");
    if (!order.is_none()) s.order = read_order(order, count);
    for (const auto& item : schedules) s.schedules.push_back(read_schedule(item, count));
    return s;
  }

  /// Runs `count` steps on rows of `sources`; returns the number done, the results, stacked, and
  /// the exception of a signal handler that ended them early, or None.
  py::tuple run_steps(const py::sequence& sources, const std::vector<double>& scales,
                      const py::object& order, int64_t first, int64_t count,
                      const py::list& schedules, const py::array_t<uint8_t>& stop) {
    Program::Steps s = read_steps(sources, scales, order, first, count, schedules);
    py::list results;
    new_results(&count, &results, &s.outputs);
    Signals signals{stop.data(), std::chrono::steady_clock::now()};
    s.go_on = &Signals::none, s.context = &signals;
    int64_t done;
    {
      const WithoutGil released;
      done = program_.run_steps(s);
    }
    return py::make_tuple(done, results, take_error());
  }

  // ---- what it is -------------------------------------------------------------------------------

  py::list calls() const {
    py::list list;
    for (const auto& c : program_.calls()) {
      py::dict d;
      d["name"] = c.name, d["args"] = c.arguments, d["where"] = c.where;
      d["bytes"] = c.bytes, d["flops"] = c.flops, d["seconds"] = c.seconds, d["timed"] = c.timed;
      d["joined"] = c.joined;
      list.append(d);
    }
    return list;
  }
  py::dict memory() const {
    const Program::Memory m = program_.memory();
    py::dict d;
    d["temporaries"] = m.temporaries, d["without_reuse"] = m.without_reuse, d["fixed"] = m.fixed;
    d["inputs"] = m.slots, d["results"] = m.results, d["scratch"] = m.scratch;
    return d;
  }
  std::string text() const {
    std::string s;
    for (const auto& c : program_.calls()) s += std::string(c.name) + "(" + c.arguments + ")\n";
    return s;
  }
  size_t size() const { return program_.size(); }

  /// (address, what writes it) of everything outside of the program that its calls write.
  py::list written() const {
    py::list list;
    for (const auto& w : program_.written())
      list.append(py::make_tuple(reinterpret_cast<intptr_t>(w.memory.data), w.by));
    return list;
  }
  py::list snapshot() const {
    py::list list;
    for (const auto& w : program_.written())
      list.append(py::bytes(w.memory.data, size_t(w.memory.bytes)));
    return list;
  }
  void restore(const py::list& snapshot) {
    const auto blocks = program_.written();
    if (snapshot.size() != blocks.size())
      throw std::invalid_argument("Program.restore: snapshot must be one of this program");
    for (size_t i = 0; i < blocks.size(); ++i)
      std::memcpy(blocks[i].memory.data, PyBytes_AS_STRING(py::object(snapshot[i]).ptr()),
                  size_t(blocks[i].memory.bytes));
  }

  /// What this thread is recording, or null.
  static PyProgram*& active() {
    static thread_local PyProgram* program = nullptr;
    return program;
  }

  const Program& core() const { return program_; }
  Program& core() { return program_; }

  /// New arrays for the results of a run, or stacked of `*steps` runs.
  void new_results(const int64_t* steps, py::list* arrays, std::vector<void*>* outputs) const {
    for (const View& v : program_.results()) {
      py::object a = new_array(v, steps);
      outputs->push_back(py::detail::array_proxy(a.ptr())->data);
      arrays->append(std::move(a));
    }
  }
  static py::object new_array(const View& like, const int64_t* steps);

 private:
  static void stop() {
    active() = nullptr;
    set_recording(nullptr);
  }
  void require_active(const char* what) const {
    if (active() != this)
      throw std::runtime_error(std::string("Program.") + what +
                               ": this thread is not recording this program");
  }
  void refuse_recording(const char* what) const {
    if (!active()) return;
    throw std::runtime_error(std::string("Program.") + what +
                             (active() == this ? ": the program is being recorded"
                                               : ": this thread is recording another program"));
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

  const int64_t* read_order(const py::object& order, int64_t count) const {
    const View v = read_array("Program.run_steps", "order", order.ptr());
    const auto& slots = program_.slots();
    const int64_t want = slots.empty() || slots[0].rank < 1 ? 0 : count * slots[0].shape[0];
    if (v.dtype != DType::i64 || v.size() != want ||
        !(py::detail::array_proxy(order.ptr())->flags & py::array::c_style))
      throw std::invalid_argument("Program.run_steps: order must be int64(" + std::to_string(want) +
                                  "), got " + describe(v));
    return v.as<int64_t>();
  }
  static Program::Steps::Schedule read_schedule(const py::handle& item, int64_t count) {
    const auto pair = py::cast<py::tuple>(item);
    const View target = read_array("Program.run_steps", "schedule", py::object(pair[0]).ptr());
    const View values = read_array("Program.run_steps", "schedule", py::object(pair[1]).ptr());
    if (target.dtype != DType::f64 || values.dtype != DType::f64 || target.size() != 1 ||
        values.size() != count)
      throw std::invalid_argument(
          "Program.run_steps: a schedule must be float64 values for each "
          "step, and the one number they are for");
    return {target.as<double>(), values.as<double>()};
  }
  static py::object take_error() {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (!type) return py::none();
    PyErr_NormalizeException(&type, &value, &trace);
    Py_XDECREF(type), Py_XDECREF(trace);
    return py::reinterpret_steal<py::object>(value);
  }
  /// Lets Python see to its signals (Ctrl-C) every 20 ms; a handler raises, or sets `stop`.
  struct Signals {
    const volatile uint8_t* stop;
    std::chrono::steady_clock::time_point asked;

    static bool none(void* context) {
      auto& self = *static_cast<Signals*>(context);
      const auto time = std::chrono::steady_clock::now();
      if (time - self.asked < std::chrono::milliseconds(20)) return true;
      self.asked = time;
      py::gil_scoped_acquire acquire;
      return PyErr_CheckSignals() == 0 && !*self.stop;
    }
  };

  /// Arrays that own their memory and that only this program (and `results`) refers to, be it
  /// through views.
  void find_owned(const py::list& results, std::vector<MemoryBlock>* owned,
                  std::vector<PyObject*>* owners) const {
    std::unordered_map<PyObject*, Py_ssize_t> held;  // references of ours
    for (const auto& o : keep_) ++held[o.ptr()];
    for (const auto& o : results) ++held[o.ptr()];
    std::unordered_map<PyObject*, bool> ours;
    std::unordered_map<PyObject*, Py_ssize_t> views_of;
    const auto base_of = [](PyObject* o) { return py::detail::array_proxy(o)->base; };
    for (const auto& [object, count] : held) {
      PyObject* base = base_of(object);
      PyObject* owner = base ? base : object;
      const auto found = ours.emplace(owner, true).first;
      if (base) {
        ++views_of[owner];
        if (Py_REFCNT(object) != count) found->second = false;
      }
    }
    for (const auto& [owner, only_ours] : ours) {
      if (!only_ours || !is_array(owner) || base_of(owner)) continue;
      const auto direct = held.find(owner);
      const Py_ssize_t count = (direct == held.end() ? 0 : direct->second) + views_of[owner];
      const auto* proxy = py::detail::array_proxy(owner);
      if (Py_REFCNT(owner) != count || !(proxy->flags & py::detail::npy_api::NPY_ARRAY_OWNDATA_))
        continue;
      const auto a = py::reinterpret_borrow<py::array>(owner);
      owned->push_back({proxy->data, int64_t(a.nbytes())});
      owners->push_back(owner);
    }
  }

  /// Lets go of arrays that the program does not use any more: all that it does not find fixed.
  void release(const std::vector<MemoryBlock>& owned) {
    const auto fixed = program_.fixed_memory();
    const auto unused = [&](const py::object& o) {
      const auto a = py::reinterpret_borrow<py::array>(o);
      const char* p = static_cast<const char*>(a.data());
      for (const MemoryBlock& b : owned) {
        if (!b.holds(p, 0)) continue;
        for (const MemoryBlock& f : fixed)
          if (b.holds(f.data, f.bytes)) return false;
        return true;
      }
      return false;
    };
    std::erase_if(keep_, unused);
  }

  Program program_;
  std::vector<py::object> keep_;
  py::object where_ = py::none();
};

void bind_program(py::module_& m);
void bind_replay(py::module_& m);

}  // namespace fastdl
