#pragma once
// One table of kernels per instruction set, and one for CUDA (csrc/cuda).
#include <string>
#include <vector>

#include "core/op.h"

namespace fastdl {

#define FASTDL_OP(Op, op) struct Op;
#include "ops.def"
#undef FASTDL_OP

struct Backend {
  const char* name;
  bool stores_bf16;  // in arguments of Kind::stored
#define FASTDL_OP(Op, op) void (*op)(const Op&, const Workspace&);
#include "ops.def"
#undef FASTDL_OP
  // See cpu/ceilings.h; null where there is no hardware of our own to measure.
  double (*fma_in_registers)(DType, int64_t steps);
  void (*copy_floats)(const float*, float*, int64_t);
};

/// The row of a table that runs `Op`.
template <class Op>
struct KernelOf;
#define FASTDL_OP(Op, op)                             \
  template <>                                         \
  struct KernelOf<Op> {                               \
    static constexpr const char* name = #op;          \
    static auto in(const Backend& b) { return b.op; } \
  };
#include "ops.def"
#undef FASTDL_OP

/// Throws std::runtime_error: `backend` cannot run the op; `remedy` says what to do.
[[noreturn]] void fail_without_kernel(const Backend& backend, const char* op, const char* remedy);
/// Throws if the backend has no kernel for the op, and never looks for one elsewhere.
template <class Op>
auto kernel_of(const Backend& backend, const char* remedy = "choose another by use_backend()") {
  const auto kernel = KernelOf<Op>::in(backend);
  if (!kernel) fail_without_kernel(backend, KernelOf<Op>::name, remedy);
  return kernel;
}
/// The names of the ops that a backend has a kernel for.
std::vector<std::string> kernels_of(const std::string& backend);

/// The active backend: the best one this machine runs, unless FASTDL_BACKEND or use_backend() says
/// otherwise.  Throws std::invalid_argument if FASTDL_BACKEND names none of them.
const Backend& backend();
void use_backend(const std::string& name);
std::vector<std::string> supported_backends();  // best first
std::vector<std::string> compiled_backends();   // best first

}  // namespace fastdl
