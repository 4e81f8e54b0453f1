#include "bind/new_array.h"

#include "bind/program.h"
#include "core/block_pool.h"

namespace fastdl {
namespace {

using Api = py::detail::npy_api;

/// 0 if the product does not fit: NumPy says so better.
int64_t bytes_of(PyObject* descr, int rank, const Py_intptr_t* shape) {
  int64_t bytes = py::reinterpret_borrow<py::dtype>(descr).itemsize();
  for (int i = 0; i < rank; ++i)
    if (__builtin_mul_overflow(bytes, shape[i], &bytes)) return 0;
  return bytes;
}

PyObject* array_of(PyObject* descr, int rank, const Py_intptr_t* shape, void* memory) {
  constexpr int kFlags =
      Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_WRITEABLE_;
  const Api& api = Api::get();
  Py_INCREF(descr);  // which the call takes over
  return api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, rank, shape, nullptr, memory,
                                   memory ? kFlags : 0, nullptr);
}

}  // namespace

PyObject* new_array(PyObject* descr, int rank, const Py_intptr_t* shape) {
  const int64_t bytes = bytes_of(descr, rank, shape);
  if (bytes < kPooledBytes || PyProgram::active()) return array_of(descr, rank, shape, nullptr);
  void* const block = take_block(bytes);
  PyObject* const owner = PyCapsule_New(block, nullptr, [](PyObject* capsule) {
    give_block(PyCapsule_GetPointer(capsule, nullptr));
  });
  if (!owner) {
    give_block(block);
    return nullptr;
  }
  PyObject* const a = array_of(descr, rank, shape, block);
  if (!a)
    Py_DECREF(owner);
  else
    Api::get().PyArray_SetBaseObject_(a, owner);  // takes the owner over
  return a;
}

}  // namespace fastdl
