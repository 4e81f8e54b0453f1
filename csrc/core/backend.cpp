#include "core/backend.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastdl {

// The build writes isas.def: X(avx512) X(avx2) ..., best first.
#define X(isa)                \
  namespace isa {             \
  extern const Backend table; \
  }
#include "isas.def"
#undef X

namespace {

#if defined(__x86_64__)
/// Register state that the operating system saves on a context switch (XCR0).  A CPU flag alone is
/// not enough: a kernel or hypervisor may leave the wide registers off.
uint64_t saved_state() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return uint64_t{hi} << 32 | lo;
}
[[maybe_unused]] bool avx2_supported() {
  constexpr uint64_t kYmm = 0x6;
  return (saved_state() & kYmm) == kYmm && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}
[[maybe_unused]] bool avx512_supported() {
  constexpr uint64_t kZmm = 0xe6;
  return (saved_state() & kZmm) == kZmm && avx2_supported() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq");
}
#endif
[[maybe_unused]] bool neon_supported() { return true; }  // part of the aarch64 baseline
[[maybe_unused]] bool generic_supported() { return true; }
[[maybe_unused]] bool cuemu_supported() { return true; }  // the emulator of CUDA, for tests

struct Entry {
  const Backend* table;
  bool supported;
};

const std::vector<Entry>& entries() {
#define X(isa) {&isa::table, isa##_supported()},
  static const std::vector<Entry> list = {
#include "isas.def"
  };
#undef X
  return list;
}

std::string joined(const std::vector<std::string>& names) {
  std::string s;
  for (const auto& n : names) s += (s.empty() ? "" : ", ") + n;
  return s;
}

const Backend* find(const std::string& name, const char* who) {
  for (const auto& e : entries())
    if (name == e.table->name) {
      if (e.supported) return e.table;
      throw std::invalid_argument(
          std::string(who) + ": backend '" + name +
          "' needs a CPU feature that this machine lacks; supported here: " +
          joined(supported_backends()));
    }
  throw std::invalid_argument(std::string(who) + ": backend must be one of " +
                              joined(compiled_backends()) + ", got '" + name + "'");
}

const Backend* best() {
  const char* name = std::getenv("FASTDL_BACKEND");
  if (name && *name) return find(name, "FASTDL_BACKEND");
  for (const auto& e : entries())
    if (e.supported) return e.table;
  return entries().back().table;
}

std::atomic<const Backend*>& active() {
  static std::atomic<const Backend*> table{best()};
  return table;
}

}  // namespace

void fail_without_kernel(const Backend& backend, const char* op, const char* remedy) {
  throw std::runtime_error(std::string(op) + ": backend '" + backend.name +
                           "' has no CUDA kernel yet; " + remedy);
}

std::vector<std::string> kernels_of(const std::string& name) {
  const Backend& b = *find(name, "kernels");
  std::vector<std::string> names;
#define FASTDL_OP(Op, op) \
  if (b.op) names.push_back(#op);
#include "ops.def"
#undef FASTDL_OP
  return names;
}

const Backend& backend() { return *active().load(std::memory_order_relaxed); }

void use_backend(const std::string& name) {
  active().store(find(name, "use_backend"), std::memory_order_relaxed);
}

std::vector<std::string> supported_backends() {
  std::vector<std::string> names;
  for (const auto& e : entries())
    if (e.supported) names.push_back(e.table->name);
  return names;
}

std::vector<std::string> compiled_backends() {
  std::vector<std::string> names;
  for (const auto& e : entries()) names.push_back(e.table->name);
  return names;
}

}  // namespace fastdl
