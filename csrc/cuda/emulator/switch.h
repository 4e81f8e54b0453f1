#pragma once
// The one thing the emulator needs from the machine: to leave one stack and go on on another.

extern "C" {
/// Saves the callee-saved registers on the running stack, leaves its pointer in `*from`, and goes
/// on where the stack `to` was left.
void fastdl_emulator_switch(void** from, void* to);
}

namespace fastdl::emulator {

/// A stack that starts `entry`, which must not return, at the first switch to it.
void* prepared_stack(char* low, char* high, void (*entry)());

}  // namespace fastdl::emulator
