#pragma once
// Where the temporaries of a program lie: blocks whose lifetimes do not meet share memory.
#include <cstdint>
#include <vector>

namespace fastdl {

struct MemoryBlock {
  char* data;
  int64_t bytes;
  bool holds(const char* p, int64_t n) const { return p >= data && p + n <= data + bytes; }
  bool meets(const MemoryBlock& b) const {
    return data < b.data + b.bytes && b.data < data + bytes;
  }
};

/// Whose memory an argument of a recorded call is.
enum class Home : uint8_t {
  fixed,      // somebody else's, at the address where it was recorded
  slot,       // an input, bound before each run
  temporary,  // the program's own, placed by lifetime
  result,     // handed out, bound before each run
  block,      // a temporary of which a chain of element-wise calls holds one block at a time
};

/// A temporary: alive from its first to its last call, both included.
struct Lifetime {
  int first, last;
  int64_t bytes;
  int64_t offset = 0;
};

/// Chooses the offsets; returns the size of the whole.  Largest first, each at the lowest place that
/// is free for its whole life: within a few percent of the peak of live bytes for real networks
/// (Pisarchyk & Lee, "Efficient memory management for deep neural net inference", 2020).
int64_t place(std::vector<Lifetime>& blocks);

/// A block that grows and is freed with its owner.  From a quarter of a huge page on it asks for
/// huge pages: packed blocks are read so fast that misses of the page table show (2-5 % of a GEMM).
class AlignedMemory {
 public:
  AlignedMemory() = default;
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;
  ~AlignedMemory();
  /// At least so many bytes, 64-byte aligned; older contents are lost.  Throws std::bad_alloc.
  char* reserve(int64_t bytes);
  char* data() const { return data_; }

 private:
  char* data_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace fastdl
