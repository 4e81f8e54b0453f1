#pragma once
// Derivatives of activations, shared by the ops that fuse them.
#include "cpu/loop.h"

namespace fastdl::FASTDL_ISA {
namespace {

/// dx = 0 where y <= 0, else dy; dx may be dy.
template <class T>
void through_relu(const T* dy, const T* y, T* dx, int64_t size) {
  parallel_range(size, 3 * sizeof(T), [=](int64_t first, int64_t last) {
    for_each_vector<T>(first, last, [=](int64_t i, int64_t n) {
      store(dx + i, select<T>(load(y + i, n) <= Vec<T>{}, Vec<T>{}, load(dy + i, n)), n);
    });
  });
}

}  // namespace
}  // namespace fastdl::FASTDL_ISA
