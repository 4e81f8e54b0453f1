#pragma once
#include "bind/array.h"

namespace fastdl {

/// A new uninitialised ndarray; null with an exception set where NumPy refuses the shape.  A large one
/// is in a block of the pool (core/block_pool.h), but not while this thread records: a program finds
/// places by itself for arrays that own their memory.
PyObject* new_array(PyObject* descr, int rank, const Py_intptr_t* shape);

}  // namespace fastdl
