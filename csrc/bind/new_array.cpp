#include "bind/new_array.h"

#include "bind/program.h"
#include "core/block_pool.h"

namespace fastdl {
namespace {

using Api = py::detail::npy_api;

/// The base of an array in a block.  It has the block as a writeable buffer, or NumPy would not let an
/// array that was made read-only be made writeable again.
struct Owner {
  PyObject head;
  void* block;
  Py_ssize_t bytes;
};

void delete_owner(PyObject* self) {
  give_block(reinterpret_cast<Owner*>(self)->block);
  PyTypeObject* const type = Py_TYPE(self);
  type->tp_free(self);
  Py_DECREF(type);
}

int buffer_of_owner(PyObject* self, Py_buffer* buffer, int flags) {
  const auto* owner = reinterpret_cast<Owner*>(self);
  return PyBuffer_FillInfo(buffer, self, owner->block, owner->bytes, 0, flags);
}

PyTypeObject* owner_type() {
  PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(&delete_owner)},
                         {Py_bf_getbuffer, reinterpret_cast<void*>(&buffer_of_owner)},
                         {0, nullptr}};
  PyType_Spec spec{"fastdl._core.Block", sizeof(Owner), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  PyObject* const made = PyType_FromSpec(&spec);
  if (!made) throw py::error_already_set();
  return reinterpret_cast<PyTypeObject*>(made);
}

/// Takes the block over; null with an exception set where there is no memory for the owner.
PyObject* new_owner(void* block, int64_t bytes) {
  static PyTypeObject* const type = owner_type();
  auto* const owner = PyObject_New(Owner, type);
  if (!owner) {
    give_block(block);
    return nullptr;
  }
  owner->block = block, owner->bytes = bytes;
  return &owner->head;
}

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
  void* const block = bytes < kPooledBytes || PyProgram::active() ? nullptr : take_block(bytes);
  if (!block) return array_of(descr, rank, shape, nullptr);
  PyObject* const owner = new_owner(block, bytes);
  if (!owner) return nullptr;
  PyObject* const a = array_of(descr, rank, shape, block);
  if (!a)
    Py_DECREF(owner);
  else
    Api::get().PyArray_SetBaseObject_(a, owner);  // takes the owner over
  return a;
}

}  // namespace fastdl
