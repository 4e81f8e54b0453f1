#pragma once
// The border between C++ exceptions and Python's.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "core/contract.h"

namespace fastdl {

/// What `body` returns to Python, or null with an exception set.
template <class F>
PyObject* guarded(F&& body) {
  try {
    return body();
  } catch (pybind11::error_already_set& e) {
    e.restore();
  } catch (const DTypeError& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  } catch (const std::invalid_argument& e) {
    PyErr_SetString(PyExc_ValueError, e.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
  }
  return nullptr;
}

}  // namespace fastdl
