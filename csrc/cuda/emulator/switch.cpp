// Written by hand because ucontext makes two system calls a switch, 20 times the price, and a block
// of 1024 threads switches thousands of times.  Only what the ABI lets a callee keep is saved;
// the control words of the floating-point units belong to all fibers alike.
#include "cuda/emulator/switch.h"

#include <cstdint>
#include <cstring>

#if !defined(__linux__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "the CUDA emulator runs on Linux on x86-64 and aarch64; configure with FASTDL_CUEMU=OFF"
#endif

#if defined(__x86_64__)
// rbp, rbx, r12 .. r15, and the return address that the call has pushed.
asm(R"(
.pushsection .text
.globl fastdl_emulator_switch
.hidden fastdl_emulator_switch
.type fastdl_emulator_switch, @function
fastdl_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastdl_emulator_switch, .-fastdl_emulator_switch
.popsection
)");
namespace {
constexpr int kSavedWords = 8;  // six registers, the entry, and its return address: nowhere
constexpr int kEntryWord = 6;
}  // namespace
#else
// x19 .. x30 (x30: where to go on) and the low halves of v8 .. v15.
asm(R"(
.pushsection .text
.globl fastdl_emulator_switch
.hidden fastdl_emulator_switch
.type fastdl_emulator_switch, %function
fastdl_emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size fastdl_emulator_switch, .-fastdl_emulator_switch
.popsection
)");
namespace {
constexpr int kSavedWords = 20;
constexpr int kEntryWord = 11;
}  // namespace
#endif

namespace fastdl::emulator {

void* prepared_stack(char* low, char* high, void (*entry)()) {
  // Zeros are where a debugger's walk up the stack ends.
  const uintptr_t top = reinterpret_cast<uintptr_t>(high) & ~uintptr_t{15};
  void** words = reinterpret_cast<void**>(top) - kSavedWords;
  if (reinterpret_cast<char*>(words) < low) return nullptr;
  std::memset(words, 0, kSavedWords * sizeof(void*));
  words[kEntryWord] = reinterpret_cast<void*>(entry);
  return words;
}

}  // namespace fastdl::emulator
