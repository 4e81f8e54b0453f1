#pragma once
// The one door to the kernels: check -> record? -> run.
#include "core/contract.h"
#include "core/device.h"
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
/// then.  Returns where the arguments are.
template <class Op>
Device check_and_record(const Op& op) {
  const Device device = check(op);
  if (device != Device::cpu) {
    if (recording()) fail_recording(Op::name, device);
    return device;
  }
  kernel_of<Op>(backend());
  if (Program* program = recording()) program->record(op);
  return device;
}

/// Puts the kernels of an op into the stream of a device.
template <class Op>
void enqueue(const Op& op, Device device) {
  const Runtime& runtime = runtime_of(device);
  const auto kernel = kernel_of<Op>(*runtime.kernels, "move the arguments to the CPU by .cpu()");
  const DeviceMemory scratch(device, runtime, scratch_of(op).shared_bytes);
  kernel(op, {scratch.data(), nullptr, 0, runtime.fault()});
}

}  // namespace fastdl
