#pragma once
// The one door to the kernels: check -> record? -> run.
#include "core/contract.h"
#include "core/program.h"

namespace fastdl {

/// What a call costs, for the thread policy, the GIL and the listing.
template <class Op>
double flops_of(const Op& op) {
  if constexpr (requires { op.flops(); }) return op.flops();
  return 0;
}

template <class Op>
void run(const Op& op) {
  kernel_of<Op>(backend())(op, workspace_for(scratch_of(op)));
}

/// Throws unless there is a kernel and the arguments keep the contract; nothing has been touched
/// then.
template <class Op>
void check_and_record(const Op& op) {
  check(op);
  kernel_of<Op>(backend());
  if (Program* program = recording()) program->record(op);
}

}  // namespace fastdl
