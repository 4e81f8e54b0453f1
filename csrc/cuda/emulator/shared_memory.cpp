// Shared memory of a block: [guard] array [guard] array [guard] ...  Arrays start as NaN and -1;
// guards hold a pattern that no kernel writes by chance, and under AddressSanitizer they may not be
// touched at all.
#include <cstring>
#include <string>

#include "cuda/emulator/machine.h"

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
constexpr size_t kRoom = SharedMemory::kLimit + (kMaxArrays + 1) * (SharedMemory::kGuard + kAlign);

size_t aligned(size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

}  // namespace

SharedMemory::SharedMemory() : memory_(new unsigned char[kRoom]) { clear(); }

void SharedMemory::clear() {
  ASAN_UNPOISON_MEMORY_REGION(memory_.get(), kRoom);
  arrays_.clear();
  top_ = aligned(kGuard), used_ = 0;
  std::memset(memory_.get(), kPattern, top_);
}

void* SharedMemory::array(const void* key, const char* name, size_t bytes, Site site) {
  for (const Array& a : arrays_)
    if (a.key == key) return memory_.get() + a.offset;
  used_ += bytes;
  if (used_ > kLimit || arrays_.size() == kMaxArrays)
    throw EmulatorError(std::string(site.file_name()) + ": shared memory '" + name +
                        "' does not fit: a block has 227 KB and here 64 arrays");
  const Array a{key, name, top_, bytes, site};
  unsigned char* start = memory_.get() + a.offset;
  top_ += aligned(bytes + kGuard);
  std::memset(start, 0xFF, bytes);
  std::memset(start + bytes, kPattern, memory_.get() + top_ - (start + bytes));
  if (arrays_.empty()) ASAN_POISON_MEMORY_REGION(memory_.get(), a.offset);
  ASAN_POISON_MEMORY_REGION(start + bytes, memory_.get() + top_ - (start + bytes));
  arrays_.push_back(a);
  return start;
}

void SharedMemory::check(const Identity& block) const {
  ASAN_UNPOISON_MEMORY_REGION(memory_.get(), kRoom);
  size_t from = 0;
  for (size_t i = 0; i <= arrays_.size(); ++i) {
    const size_t to = i < arrays_.size() ? arrays_[i].offset : top_;
    for (size_t k = from; k < to; ++k) {
      if (memory_[k] == kPattern) continue;
      const Array& a = arrays_[i ? i - 1 : 0];
      const int64_t at = int64_t(k) - int64_t(a.offset);
      throw EmulatorError(std::string(a.site.file_name()) + ":" + std::to_string(a.site.line()) +
                          ": out-of-bounds write to shared memory '" + a.name + "': byte " +
                          std::to_string(at) + " of " + std::to_string(a.bytes) + " in block " +
                          std::to_string(block.block.x));
    }
    if (i < arrays_.size()) from = arrays_[i].offset + arrays_[i].bytes;
  }
}

}  // namespace fastdl::emulator
