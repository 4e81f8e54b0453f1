// Arrays start as NaN and -1; guards hold a pattern that no kernel writes by chance, and under
// AddressSanitizer they may not be touched at all, nor may blocks that do not run.
#include <cstring>
#include <string>

#include "cuda/emulator/machine.h"
#include "cuda/emulator/tsan.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace fastdl::emulator {
namespace {

constexpr unsigned char kPattern = 0xA5;
constexpr size_t kAlign = 128;
constexpr size_t kMaxArrays = 64;
constexpr size_t kRoom = kSharedMemoryLimit + (kMaxArrays + 1) * (SharedLayout::kGuard + kAlign);

constexpr size_t aligned(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }
constexpr size_t kFirst = aligned(SharedLayout::kGuard);

}  // namespace

const SharedLayout::Array* SharedLayout::find(const void* key) const {
  for (const Array& a : arrays_)
    if (a.key == key) return &a;
  return nullptr;
}

const SharedLayout::Array& SharedLayout::add(const void* key, const char* name, size_t bytes,
                                             Site site) {
  used_ += bytes;
  if (used_ > kSharedMemoryLimit || arrays_.size() == kMaxArrays)
    throw EmulatorError(std::string(site.file_name()) + ": shared memory '" + name +
                        "' does not fit: a block has 227 KB and here 64 arrays");
  const size_t offset = arrays_.empty() ? kFirst : arrays_.back().end;
  arrays_.push_back({key, name, offset, bytes, offset + aligned(bytes + kGuard), site});
  return arrays_.back();
}

void SharedLayout::clear() { arrays_.clear(), used_ = 0; }

SharedMemory::SharedMemory(const SharedLayout& layout) : layout_(layout), memory_(new char[kRoom]) {
  ASAN_POISON_MEMORY_REGION(base(), kRoom);
}

void SharedMemory::start() {
  const tsan::Unseen unseen;
  ASAN_UNPOISON_MEMORY_REGION(base(), kFirst);
  std::memset(base(), kPattern, kFirst);
  ASAN_POISON_MEMORY_REGION(base(), kFirst);
  for (const auto& array : layout_.arrays()) prepare(array);
}

void SharedMemory::prepare(const SharedLayout::Array& a) {
  const tsan::Unseen unseen;
  char *start = base() + a.offset, *behind = start + a.bytes, *end = base() + a.end;
  ASAN_UNPOISON_MEMORY_REGION(start, size_t(end - start));
  std::memset(start, 0xFF, a.bytes);
  std::memset(behind, kPattern, size_t(end - behind));
  ASAN_POISON_MEMORY_REGION(behind, size_t(end - behind));
}

void SharedMemory::check(const Identity& block) const {
  ASAN_UNPOISON_MEMORY_REGION(base(), kRoom);
  const auto& arrays = layout_.arrays();
  size_t from = 0;
  for (size_t i = 0; i <= arrays.size() && !arrays.empty(); ++i) {
    const size_t to = i < arrays.size() ? arrays[i].offset : arrays.back().end;
    for (size_t k = from; k < to; ++k) {
      if (static_cast<unsigned char>(base()[k]) == kPattern) continue;
      const SharedLayout::Array& a = arrays[i ? i - 1 : 0];
      const int64_t at = int64_t(k) - int64_t(a.offset);
      throw EmulatorError(std::string(a.site.file_name()) + ":" + std::to_string(a.site.line()) +
                          ": out-of-bounds write to shared memory '" + a.name + "': byte " +
                          std::to_string(at) + " of " + std::to_string(a.bytes) + " in block " +
                          std::to_string(block.block.x));
    }
    if (i < arrays.size()) from = arrays[i].offset + arrays[i].bytes;
  }
}

void SharedMemory::end() {
  const tsan::Unseen unseen;
  ASAN_UNPOISON_MEMORY_REGION(base(), kRoom);
  for (const auto& a : layout_.arrays()) std::memset(base() + a.offset, 0xFF, a.bytes);
  ASAN_POISON_MEMORY_REGION(base(), kRoom);
}

bool SharedMemory::contains(const void* p) const { return p >= base() && p < base() + kRoom; }

}  // namespace fastdl::emulator
