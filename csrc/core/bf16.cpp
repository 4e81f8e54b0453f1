#include "core/bf16.h"

#include <atomic>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastdl {
namespace {

#if defined(__x86_64__)
/// Linux gives the registers of AMX to processes that ask for them, once for all their threads.
bool amx_granted() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

Bf16Unit best() {
#if defined(__x86_64__)
  if (amx_granted()) return Bf16Unit::amx;
  if (__builtin_cpu_supports("avx512bf16")) return Bf16Unit::dot;
#endif
  return Bf16Unit::fma;
}

std::atomic<Bf16Unit> allowed{Bf16Unit::amx};

}  // namespace

Bf16Unit bf16_unit() {
  static const Bf16Unit here = best();
  const Bf16Unit most = allowed.load(std::memory_order_relaxed);
  return most < here ? most : here;
}

void use_bf16_unit(Bf16Unit most) { allowed.store(most, std::memory_order_relaxed); }

}  // namespace fastdl
