#pragma once
// The insides of the emulator: see emulator.h.
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulator/emulator.h"

namespace fastdl::emulator {

/// A point where threads wait for one another; it can be used again at once.
struct Meeting {
  unsigned expected = 0, arrived = 0;
  uint64_t generation = 0;
  Site site;
};

/// The lanes of a warp that shuffle under one mask.  Two sets of slots: no lane can be two
/// exchanges ahead of one that still reads.
struct Exchange {
  uint32_t mask, here = 0;
  Meeting meeting;
  Slot slots[2][kWarp];
};

struct Fiber {
  Identity id;
  void* stack_pointer = nullptr;  // null: to be prepared
  bool done = true;
  const Meeting* waits = nullptr;
  uint64_t generation = 0;  // of what it waits for to end
  Site site;                // where it waits

  bool ready() const { return !done && (!waits || waits->generation != generation); }
};

/// Memory of stacks; each has a page below it that may not be touched.
class Stacks {
 public:
  static constexpr size_t kBytes = 64 * 1024;
  Stacks();
  ~Stacks();
  char* low(unsigned number) const { return base_ + number * (kBytes + page_) + page_; }
  char* high(unsigned number) const { return low(number) + kBytes; }

 private:
  char* base_;
  size_t page_;
};

/// Shared memory of the running block.
class SharedMemory {
 public:
  static constexpr size_t kLimit = 227 * 1024;  // of a block on sm_90
  static constexpr size_t kGuard = 256;         // bytes between arrays that nobody may touch
  SharedMemory();
  void* array(const void* key, const char* name, size_t bytes, Site site);
  void clear();
  /// Throws if a guard was written to.
  void check(const Identity& block) const;

 private:
  struct Array {
    const void* key;
    const char* name;
    size_t offset, bytes;
    Site site;
  };
  std::unique_ptr<unsigned char[]> memory_;
  std::vector<Array> arrays_;
  size_t top_ = 0, used_ = 0;
};

class Machine {
 public:
  void launch(const Shape& shape, Site site, void (*body)(void*), void* context);

  // Of the running fiber.
  void meet(Meeting& meeting, Site site);
  const Slot* exchange(uint32_t mask, const Slot& given, Site site);
  void* shared_array(const void* key, const char* name, size_t bytes, Site site) {
    return shared_.array(key, name, bytes, site);
  }
  Meeting& barrier() { return barrier_; }
  Fiber& self() { return fibers_[running_]; }

  /// What every fiber does, for ever: one thread of a kernel after the other.
  [[noreturn]] void fiber_loop();

 private:
  void run_block(unsigned number);
  void place_threads(unsigned block);
  void resume(unsigned number);
  void wait();
  void abandon();
  Exchange& exchange_of(unsigned warp, uint32_t mask);
  std::string deadlock() const;
  template <class T>
  void shuffle(std::vector<T>& order);

  Site site_;
  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;

  Stacks stacks_;
  std::vector<Fiber> fibers_;
  std::vector<std::vector<std::unique_ptr<Exchange>>> warps_;
  Meeting barrier_;
  SharedMemory shared_;
  unsigned running_ = 0, live_ = 0;
  void* main_stack_ = nullptr;
  std::exception_ptr error_;
  std::vector<unsigned> order_;
  uint64_t seed_ = 0, launches_ = 0, random_ = 0;  // seed 0: threads and blocks in order
};

}  // namespace fastdl::emulator
