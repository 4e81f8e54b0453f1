#include "core/block_pool.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "core/cgroup.h"
#include "core/environment.h"

namespace fastdl {
namespace {

constexpr int64_t kPage = 4096, kLine = 64;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
/// From here on the system is asked for huge pages, as NumPy asks it.
constexpr int64_t kHugeBytes = int64_t{4} << 20;
/// The first bytes of blocks in a page: none is a power of two of lines away from another.
constexpr int64_t kPlaceStep = 9 * kLine, kPlaces = 7;

/// What lies in the line before a block.
struct Header {
  char* mapping;
  int64_t capacity;  // of the block; the mapping has a page more
};
static_assert(sizeof(Header) <= kLine);

Header& header_of(void* block) {
  return *reinterpret_cast<Header*>(static_cast<char*>(block) - kLine);
}

void* map_block(int64_t capacity, int64_t place) {
  const int64_t bytes = capacity + kPage;
  void* const memory =
      mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (capacity >= kHugeBytes) madvise(memory, size_t(bytes), MADV_HUGEPAGE);  // or small ones
#endif
  char* const mapping = static_cast<char*>(memory);
  char* const block = mapping + kLine + place * kPlaceStep;
  header_of(block) = {mapping, capacity};
  return block;
}

void unmap_block(void* block) {
  const Header h = header_of(block);
  munmap(h.mapping, size_t(h.capacity + kPage));
}

int64_t default_limit() {
  if (const auto n = environment_integer("FASTDL_POOL_BYTES", 0, kMost)) return *n;
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return std::min(int64_t{1} << 30, cgroup_memory(pages > 0 ? pages * page : kMost) / 4);
}

class BlockPool {
 public:
  void* take(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (void* block = reuse(bytes)) return block;
    if (bytes > kMost - 2 * kPage) return nullptr;
    const int64_t capacity = (bytes + kPage - 1) / kPage * kPage;
    const int64_t place = place_++ % kPlaces;
    void* block = map_block(capacity, place);
    if (!block && held_ > 0) {
      shrink(0);
      block = map_block(capacity, place);
    }
    return block;
  }

  void give(void* block) {
    const std::lock_guard lock(mutex_);
    const int64_t capacity = header_of(block).capacity;
    if (capacity > limit_) return unmap_block(block);
    const Size size{capacity, given_++};
    try {
      by_size_.insert(size);
      by_age_.emplace(size.second, block);
    } catch (const std::bad_alloc&) {
      by_size_.erase(size);
      return unmap_block(block);
    }
    held_ += capacity;
    shrink(limit_);
  }

  int64_t limit() {
    const std::lock_guard lock(mutex_);
    return limit_;
  }
  int64_t held() {
    const std::lock_guard lock(mutex_);
    return held_;
  }
  void set_limit(int64_t n_bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = n_bytes;
    shrink(limit_);
  }
  void empty() {
    const std::lock_guard lock(mutex_);
    shrink(0);
  }

  /// Around a fork, so that no other thread is inside while the process is copied.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  using Size = std::pair<int64_t, int64_t>;  // capacity, number of the give

  /// The smallest free block that is large enough, of those the one that was used last; none with
  /// more than a quarter to spare.
  void* reuse(int64_t bytes) {
    const auto fits = by_size_.lower_bound({bytes, 0});
    if (fits == by_size_.end() || fits->first - bytes > bytes / 4) return nullptr;
    return remove(std::prev(by_size_.lower_bound({fits->first + 1, 0}))->second);
  }

  void* remove(int64_t given) {
    const auto at = by_age_.find(given);
    void* const block = at->second;
    const int64_t capacity = header_of(block).capacity;
    by_age_.erase(at);
    by_size_.erase({capacity, given});
    held_ -= capacity;
    return block;
  }

  void shrink(int64_t most) {
    while (held_ > most) unmap_block(remove(by_age_.begin()->first));
  }

  std::mutex mutex_;
  std::set<Size> by_size_;           // what is free
  std::map<int64_t, void*> by_age_;  // the same, by the number of the give
  int64_t limit_ = default_limit();
  int64_t held_ = 0, given_ = 0, place_ = 0;
};

/// Never destroyed: arrays may die after everything else.
BlockPool& pool() {
  static BlockPool* const the_pool = [] {
    static BlockPool* const made = new BlockPool;
    pthread_atfork([] { made->lock(); }, [] { made->unlock(); }, [] { made->unlock(); });
    return made;
  }();
  return *the_pool;
}

}  // namespace

void* take_block(int64_t bytes) { return pool().take(bytes); }
void give_block(void* block) noexcept { pool().give(block); }

int64_t pool_bytes() { return pool().limit(); }
int64_t pooled_bytes() { return pool().held(); }
void empty_pool() { pool().empty(); }

void set_pool_bytes(int64_t n_bytes) {
  if (n_bytes < 0)
    throw std::invalid_argument("set_pool_bytes: n_bytes must not be negative, got " +
                                std::to_string(n_bytes));
  pool().set_limit(n_bytes);
}

}  // namespace fastdl
