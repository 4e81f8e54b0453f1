#include "core/memory_plan.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/op.h"

namespace fastdl {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

bool meet(const Lifetime& a, const Lifetime& b) { return a.first <= b.last && b.first <= a.last; }

/// The lowest offset where `block` fits between those that are placed and alive with it.
int64_t lowest_gap(const Lifetime& block, const std::vector<const Lifetime*>& placed) {
  int64_t offset = 0;
  for (const Lifetime* other : placed) {  // by rising offset
    if (!meet(block, *other)) continue;
    if (offset + aligned_bytes(block.bytes) <= other->offset) break;
    offset = std::max(offset, other->offset + aligned_bytes(other->bytes));
  }
  return offset;
}

}  // namespace

int64_t place(std::vector<Lifetime>& blocks) {
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  std::vector<const Lifetime*> placed;
  int64_t total = 0;
  for (const size_t i : order) {
    Lifetime& block = blocks[i];
    block.offset = lowest_gap(block, placed);
    total = std::max(total, block.offset + aligned_bytes(block.bytes));
    const auto after = [](int64_t offset, const Lifetime* b) { return offset < b->offset; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), block.offset, after), &block);
  }
  return total;
}

AlignedMemory::~AlignedMemory() { std::free(data_); }

char* AlignedMemory::reserve(int64_t bytes) {
  if (bytes <= capacity_) return data_;
  std::free(data_);
  data_ = nullptr, capacity_ = 0;
  const bool huge = bytes >= kHugePage / 4;
  const int64_t unit = huge ? kHugePage : 64;
  const int64_t size = (bytes + unit - 1) / unit * unit;
  data_ =
      static_cast<char*>(std::aligned_alloc(static_cast<size_t>(unit), static_cast<size_t>(size)));
  if (!data_) throw std::bad_alloc();
#if defined(__linux__)
  if (huge) madvise(data_, static_cast<size_t>(size), MADV_HUGEPAGE);
#endif
  capacity_ = size;
  return data_;
}

}  // namespace fastdl
