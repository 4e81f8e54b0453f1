#pragma once
#include "bind/array.h"

namespace fastdl {

/// A new uninitialised ndarray, a large one in a block of the pool (core/block_pool.h); null with an
/// exception set where NumPy refuses the shape.
PyObject* new_array(PyObject* descr, int rank, const Py_intptr_t* shape);

}  // namespace fastdl
