#pragma once
// A part of an element-wise call: what chains of a program are run by.
#include <vector>

#include "core/backend.h"
#include "core/contract.h"

namespace fastdl {

/// An op may declare `static constexpr bool elementwise = true`: element i of its outputs depends
/// on element i of its inputs and on nothing else, so that it may be run on parts of them.
template <class Op>
constexpr bool is_elementwise() {
  if constexpr (requires { Op::elementwise; }) return Op::elementwise;
  return false;
}

/// A view of a call that lies in the block memory of its chain: offset in the op, and which.
struct Local {
  size_t view;
  int index;
};

/// Elements of an element-wise call.
struct Slice {
  int64_t first, count;
  const std::vector<Local>& locals;
  char* scratch;
  int64_t block;
};

/// Narrows the views of an op to a slice.
struct Cut : Visitor<Cut> {
  const Slice& slice;
  const char* base;
  Cut(const Slice& slice, const char* base) : slice(slice), base(base) {}
  void array(const char*, View& v, const ArraySpec&) {
    if (!v) return;
    const auto offset = size_t(reinterpret_cast<const char*>(&v) - base);
    const bool repeats = v.size() != 1 && is_repeated(v);
    if (!repeats) v.data = v.as<char>() + slice.first * size_of(v.dtype);
    for (const Local& l : slice.locals)
      if (l.view == offset)
        v.data = slice.scratch + l.index * slice.block * int64_t{sizeof(double)};
    v.rank = 1, v.shape[0] = slice.count, v.stride[0] = repeats ? 0 : 1;
  }
  template <class T>
  void attr(const char*, const T&) {}
};

/// Runs an op on a part of its elements.
template <class Op>
void run_slice(const Backend& b, const Op& whole, const Slice& slice) {
  Op part = whole;
  Cut cut{slice, reinterpret_cast<const char*>(&part)};
  Op::visit(part, cut);
  KernelOf<Op>::in(b)(part, Workspace{});
}

/// The number of elements of all views, or 0 if one is neither contiguous nor one repeated number.
struct Elements : Visitor<Elements> {
  int64_t size = -1;
  void array(const char*, const View& v, const ArraySpec&) {
    if (!v) return;
    const bool plain = is_contiguous(v) || is_repeated(v);
    size = plain && (size < 0 || size == v.size()) ? v.size() : 0;
  }
  template <class T>
  void attr(const char*, const T&) {}
};

}  // namespace fastdl
