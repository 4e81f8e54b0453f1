#pragma once
// The insides of the emulator: see emulator.h.
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulator/emulator.h"

namespace fastdl::emulator {

/// "file:line" for messages.
std::string text(Site site);

/// A point where threads wait for one another; it can be used again at once.
struct Meeting {
  unsigned expected = 0, arrived = 0;
  uint64_t generation = 0;
  Site site;
  char tokens[2];  // by generation, for ThreadSanitizer: nobody is two generations ahead
};

/// The lanes of a warp that shuffle under one mask.  Two sets of slots: no lane can be two
/// exchanges ahead of one that still reads.
struct Exchange {
  uint32_t mask, here = 0;
  Meeting meeting;
  Slot slots[2][kWarp];
};

/// A copy on its way to shared memory.
struct Copy {
  void* to;
  const void* from;
  size_t bytes, group;
};

struct Fiber {
  Identity id;
  void* stack_pointer = nullptr;  // null: to be prepared
  void* tsan = nullptr;
  bool done = true;
  const Meeting* waits = nullptr;
  uint64_t generation = 0;  // of what it waits for to end
  Site site;                // where it waits, or where it started its latest copy
  std::vector<Copy> copies;
  size_t groups = 0;  // of copies, committed

  bool ready() const { return !done && (!waits || waits->generation != generation); }
};

/// Memory of the stacks of a block; each has a page below it that may not be touched.
class Stacks {
 public:
  static constexpr size_t kBytes = 64 * 1024;
  Stacks();
  ~Stacks();
  Stacks(const Stacks&) = delete;
  char* low(unsigned number) const { return base_ + number * (kBytes + page_) + page_; }
  char* high(unsigned number) const { return low(number) + kBytes; }

 private:
  char* base_;
  size_t page_;
};

/// Where the arrays of a kernel lie in shared memory, the same in each of its blocks.
class SharedLayout {
 public:
  static constexpr size_t kGuard = 256;  // bytes between arrays that nobody may touch
  struct Array {
    const void* key;
    const char* name;
    size_t offset, bytes, end;  // end: of the guard behind it
    Site site;
  };
  const Array* find(const void* key) const;
  const Array& add(const void* key, const char* name, size_t bytes, Site site);
  void clear();
  const std::vector<Array>& arrays() const { return arrays_; }

 private:
  std::vector<Array> arrays_;
  size_t used_ = 0;
};

/// Shared memory of one block: [guard] array [guard] array [guard] ...
class SharedMemory {
 public:
  explicit SharedMemory(const SharedLayout& layout);
  void start();
  /// Makes room for an array that the layout has just got.
  void prepare(const SharedLayout::Array& array);
  /// Throws if a guard was written to.
  void check(const Identity& block) const;
  /// From here on nobody finds anything in it.
  void end();
  char* base() const { return memory_.get(); }
  bool contains(const void* p) const;

 private:
  const SharedLayout& layout_;
  std::unique_ptr<char[]> memory_;
};

/// What the threads of one block share.
struct Block {
  explicit Block(const SharedLayout& layout)
      : fibers(kMaxThreads), warps(kMaxThreads / kWarp), shared(layout) {}

  Stacks stacks;
  std::vector<Fiber> fibers;  // a launch uses the first
  std::vector<std::vector<std::unique_ptr<Exchange>>> warps;
  Meeting barrier;
  SharedMemory shared;
  unsigned live = 0, pause = 0;  // threads that have not ended; turns to wait
  bool started = false;
};

class Machine {
 public:
  void launch(const Shape& shape, Site site, void (*body)(void*), void* context);

  // Of the running fiber.
  void meet(Meeting& meeting, bool orders_memory, Site site);
  const Slot* exchange(uint32_t mask, const Slot& given, bool orders_memory, Site site);
  void* shared_array(const void* key, const char* name, size_t bytes, Site site);
  void* shared_of_rank(const void* p, unsigned rank, Site site);
  void copy_async(void* to, const void* from, size_t bytes, Site site);
  void wait_for_copies(size_t prior);
  Meeting& cluster_barrier() { return barrier_; }
  Block& block() { return *blocks_[self_->id.rank]; }
  Fiber& self() { return *self_; }

  /// What every fiber does, for ever: one thread of a kernel after the other.
  [[noreturn]] void fiber_loop();

 private:
  void run_cluster(unsigned number);
  void place_block(Block& block, unsigned rank, unsigned number);
  void pace_blocks();
  bool wake_a_block();
  void start(Block& block);
  bool paces() const { return seed_ && launched.cluster > 1; }
  bool turn_of_all();
  void resume(Fiber& fiber);
  void end_block(Block& block);
  void wait();
  void abandon();
  Exchange& exchange_of(unsigned warp, uint32_t mask);
  void check_shape(const Shape& shape, Site site) const;
  std::string deadlock() const;
  uint64_t draw(uint64_t below);
  template <class T>
  void shuffle(std::vector<T>& order);

  Site site_;
  void (*body_)(void*) = nullptr;
  void* context_ = nullptr;

  SharedLayout layout_;
  std::vector<std::unique_ptr<Block>> blocks_;  // by rank in the running cluster
  Meeting barrier_;                             // of the cluster
  Fiber* self_ = nullptr;
  void* main_stack_ = nullptr;
  void* main_tsan_ = nullptr;
  std::exception_ptr error_;
  std::vector<unsigned> order_;                    // of the threads of a cluster: rank, then number
  uint64_t seed_ = 0, launches_ = 0, random_ = 0;  // seed 0: threads and blocks in order
};

}  // namespace fastdl::emulator
