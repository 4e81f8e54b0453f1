#include "cuda/emulator/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

namespace fastdl::emulator {
namespace {

constexpr int64_t kAlignment = 256;
constexpr unsigned char kFresh = 0xFF, kPadding = 0xA5;

int64_t page() {
  static const int64_t bytes = sysconf(_SC_PAGESIZE);
  return bytes;
}
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Block {
  int64_t bytes, pages_bytes;  // without the guard page
};

/// All that is allocated, by address, and how many accesses are under way.
class Memory {
 public:
  void* allocate(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    const int64_t whole = round_up(round_up(bytes, kAlignment), page());
    void* start =
        mmap(nullptr, size_t(whole + page()), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return nullptr;
    char* first = static_cast<char*>(start) + whole - round_up(bytes, kAlignment);
    blocks_[first] = {bytes, whole};
    protect(first, PROT_READ | PROT_WRITE);
    std::memset(start, kPadding, size_t(whole));
    std::memset(first, kFresh, size_t(bytes));
    if (!accesses_) protect(first, PROT_NONE);
    return first;
  }
  void release(char* first) {
    const std::lock_guard lock(mutex_);
    protect(first, PROT_READ);
    check_padding(first);
    munmap(start_of(first), size_t(blocks_[first].pages_bytes + page()));
    blocks_.erase(first);
  }
  bool owns(const char* p) {
    const std::lock_guard lock(mutex_);
    auto after = blocks_.upper_bound(const_cast<char*>(p));
    if (after == blocks_.begin()) return false;
    const auto& [first, block] = *std::prev(after);
    return p < first + block.bytes;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    if (accesses_++ == 0)
      for (const auto& [first, block] : blocks_) protect(first, PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--accesses_ == 0)
      for (const auto& [first, block] : blocks_) protect(first, PROT_NONE);
  }
  /// What was written beside an allocation since the last call, or null.
  const char* stray() {
    const std::lock_guard lock(mutex_);
    const char* found = stray_;
    stray_ = nullptr;
    return found;
  }

 private:
  char* start_of(char* first) {
    const Block& b = blocks_[first];
    return first + round_up(b.bytes, kAlignment) - b.pages_bytes;
  }
  void protect(char* first, int access) {
    mprotect(start_of(first), size_t(blocks_[first].pages_bytes), access);
  }
  void check_padding(char* first) {
    static char text[128];
    const Block& b = blocks_[first];
    const char* end = start_of(first) + b.pages_bytes;
    for (const char* p = start_of(first); p < end; ++p) {
      if ((p >= first && p < first + b.bytes) || static_cast<unsigned char>(*p) == kPadding)
        continue;
      std::snprintf(text, sizeof text,
                    "emulator: a kernel wrote at byte %lld of an allocation of %lld bytes",
                    static_cast<long long>(p - first), static_cast<long long>(b.bytes));
      stray_ = text;
      return;
    }
  }

  std::mutex mutex_;
  std::map<char*, Block> blocks_;
  int accesses_ = 0;
  const char* stray_ = nullptr;
};

/// Never destroyed: arrays may outlive the statics of this file.
Memory& memory() {
  static Memory& m = *new Memory;
  return m;
}

}  // namespace

void* allocate_memory(int64_t bytes) { return memory().allocate(bytes); }
void release_memory(void* first) { memory().release(static_cast<char*>(first)); }
bool owns_memory(const void* p) { return memory().owns(static_cast<const char*>(p)); }
const char* stray_write() { return memory().stray(); }

DeviceAccess::DeviceAccess() { memory().open(); }
DeviceAccess::~DeviceAccess() { memory().close(); }

}  // namespace fastdl::emulator
