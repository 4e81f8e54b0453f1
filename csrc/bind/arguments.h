#pragma once
// Fills an op from the arguments of a Python call, and describes its signature to Python; both read
// the op's own description.
#include <cmath>
#include <cstring>
#include <vector>

#include "bind/device_array.h"

namespace fastdl {

/// The arguments of one METH_FASTCALL | METH_KEYWORDS call, by position or by name.
struct CallArguments {
  const char* op;
  PyObject* const* values;
  Py_ssize_t positional;
  PyObject* names;  // tuple of keyword names, or null

  Py_ssize_t keywords() const { return names ? PyTuple_GET_SIZE(names) : 0; }
  const char* keyword(Py_ssize_t i) const {
    const char* text = PyUnicode_AsUTF8(PyTuple_GET_ITEM(names, i));
    if (!text) throw pybind11::error_already_set();  // half of a pair of surrogates
    return text;
  }
  /// The value of the argument at `position` called `name`, or null if it was not given.
  PyObject* find(Py_ssize_t position, const char* name, int* used) const {
    PyObject* found = nullptr;
    if (position < positional) found = values[position], ++*used;
    for (Py_ssize_t i = 0; i < keywords(); ++i) {
      if (std::strcmp(keyword(i), name) != 0) continue;
      if (found)
        throw DTypeError(std::string(op) + ": " + name + " was given by position and by name");
      found = values[positional + i], ++*used;
    }
    return found;
  }
};

/// The names an op knows, for the text of an error.
struct ArgumentNames : Visitor<ArgumentNames> {
  std::string text;
  std::vector<std::string> list;
  void array(const char* name, const View&, const ArraySpec&) { add(name); }
  template <class T>
  void attr(const char* name, const T&) {
    add(name);
  }
  void add(const char* name) {
    text += (text.empty() ? "" : ", ") + std::string(name);
    list.push_back(name);
  }
};

struct FromPython : Visitor<FromPython> {
  const CallArguments& args;
  Py_ssize_t position = 0;
  int used = 0;
  explicit FromPython(const CallArguments& a) : args(a) {}

  void array(const char* name, View& v, const ArraySpec&) {
    PyObject* o = args.find(position++, name, &used);
    if (o && o != Py_None) read_argument(args.op, name, o, v);
  }
  template <class T>
  void attr(const char* name, T& x) {
    if (PyObject* o = args.find(position++, name, &used)) read(name, o, x);
  }

 private:
  [[noreturn]] void fail(const char* name, const std::string& want, PyObject* o) const {
    throw DTypeError(std::string(args.op) + ": " + name + " must be " + want + ", got " +
                     std::string(py::repr(o)));
  }
  void read(const char* name, PyObject* o, bool& x) const {
    if (!PyBool_Check(o)) fail(name, "True or False", o);
    x = o == Py_True;
  }
  void read(const char* name, PyObject* o, int64_t& x) const {
    if (PyBool_Check(o) || !PyIndex_Check(o)) fail(name, "an integer", o);
    x = PyNumber_AsSsize_t(o, PyExc_OverflowError);
    if (x == -1 && PyErr_Occurred()) throw py::error_already_set();
  }
  void read(const char* name, PyObject* o, double& x) const {
    if (PyBool_Check(o) || !(PyFloat_Check(o) || PyIndex_Check(o))) fail(name, "a number", o);
    x = PyFloat_AsDouble(o);
    if (x == -1 && PyErr_Occurred()) throw py::error_already_set();
  }
  template <class E>
    requires std::is_enum_v<E>
  void read(const char* name, PyObject* o, E& x) const {
    const char* text = PyUnicode_Check(o) ? PyUnicode_AsUTF8(o) : nullptr;
    const char* const* const names = EnumNames<E>::value;
    for (int i = 0; text && names[i]; ++i)
      if (std::strcmp(text, names[i]) == 0) {
        x = static_cast<E>(i);
        return;
      }
    std::string known;
    for (int i = 0; names[i]; ++i) known += (i ? ", '" : "'") + std::string(names[i]) + "'";
    if (!text) fail(name, "one of " + known, o);
    throw std::invalid_argument(std::string(args.op) + ": " + name + " must be one of " + known +
                                ", got '" + text + "'");
  }
};

template <class Op>
Op read_call(const CallArguments& args) {
  Op op{};
  FromPython from(args);
  Op::visit(op, from);
  if (from.used == args.positional + args.keywords()) return op;
  ArgumentNames names;
  Op::visit(op, names);
  std::string odd = "too many positional arguments";
  for (Py_ssize_t i = 0; i < args.keywords(); ++i) {
    const std::string given = args.keyword(i);
    bool known = false;
    for (const auto& n : names.list) known = known || n == given;
    if (!known) odd = "unknown argument '" + given + "'";
  }
  throw DTypeError(std::string(Op::name) + ": " + odd + "; it takes " + names.text);
}

/// The signature as data: what the stub generator and the tests read.
struct Signature : Visitor<Signature> {
  py::list list;
  void array(const char* name, const View&, const ArraySpec& s) {
    static const char* const roles[] = {"in", "out", "inout"};
    static const char* const kinds[] = {"real", "index", "i64",    "f64",
                                        "u8",   "any",   "stored", "cast"};
    py::dict d;
    d["name"] = name, d["dims"] = s.dims, d["role"] = roles[int(s.role)];
    d["kind"] = kinds[int(s.kind)], d["optional"] = s.optional, d["strided"] = s.strided;
    list.append(d);
  }
  template <class T>
  void attr(const char* name, const T& value) {
    py::dict d;
    d["name"] = name;
    if constexpr (std::is_enum_v<T>) {
      py::list choices;
      for (int i = 0; EnumNames<T>::value[i]; ++i) choices.append(EnumNames<T>::value[i]);
      d["choices"] = choices, d["default"] = EnumNames<T>::value[int(value)];
    } else {
      d["default"] = value;
    }
    list.append(d);
  }
};

/// "(X, W, b=None, Y, *, activation='none')": the first line of the docstring.
struct SignatureText : Visitor<SignatureText> {
  std::string text;
  void array(const char* name, const View&, const ArraySpec& s) {
    static const char* const kinds[] = {"float", "int32|int64", "int64",          "float64",
                                        "uint8", "any",         "float|bfloat16", "any float"};
    text += (text.empty() ? "" : ", ") + std::string(name) + ": " + kinds[int(s.kind)] + "[" +
            s.dims + "]" +
            (s.role == Role::in    ? ""
             : s.role == Role::out ? " out"
                                   : " inout") +
            (s.optional ? " | None" : "");
  }
  template <class T>
  void attr(const char* name, const T& value) {
    text += std::string(", ") + name + " = ";
    if constexpr (std::is_enum_v<T>)
      text += std::string("'") + EnumNames<T>::value[int(value)] + "'";
    else
      text += std::string(py::repr(py::cast(value)));
  }
};

}  // namespace fastdl
