// The scheduler.
#include "cuda/emulator/machine.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <numeric>
#include <utility>

#include "cuda/emulator/device_memory.h"
#include "cuda/emulator/switch.h"
#include "cuda/emulator/tsan.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fastdl::emulator {

const Identity* running = nullptr;
Shape launched;

namespace {

/// Stacks of threads that never ended leave nothing behind for the next use.
void forget_stack(char* low, char* high) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(low, size_t(high - low));
#else
  (void)low, (void)high;
#endif
}

/// "0-31, 40" from ascending numbers.
std::string ranges(const std::vector<unsigned>& numbers) {
  std::string s;
  for (size_t i = 0; i < numbers.size();) {
    size_t j = i;
    while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
    if (!s.empty()) s += ", ";
    s += std::to_string(numbers[i]);
    if (j > i) s += "-" + std::to_string(numbers[j]);
    i = j + 1;
  }
  return s;
}

Dim place(unsigned number, const Dim& size) {
  return {number % size.x, number / size.x % size.y, number / size.x / size.y};
}

/// One machine for the process: a kernel has it to itself.
std::mutex& turn() {
  static std::mutex mutex;
  return mutex;
}
Machine& machine() {
  static Machine machine;
  return machine;
}

void enter_fiber() { machine().fiber_loop(); }

}  // namespace

// ---- the scheduler ----------------------------------------------------------------------------

uint64_t Machine::draw(uint64_t below) {
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  return (random_ >> 32) * below >> 32;
}

template <class T>
void Machine::shuffle(std::vector<T>& order) {
  if (seed_ == 0) return;
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(draw(i))]);
}

void Machine::place_block(Block& block, unsigned rank, unsigned number) {
  const unsigned threads = launched.block.count();
  block.barrier = Meeting{threads, 0, 0, {}, {}};
  for (auto& warp : block.warps)
    for (auto& e : warp) e->meeting.arrived = 0;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& f = block.fibers[i];
    f.id = {place(i, launched.block), place(number, launched.grid), i, i % kWarp, rank};
    f.done = false, f.waits = nullptr, f.groups = 0;
    f.copies.clear();
    if (f.stack_pointer) continue;
    f.stack_pointer = prepared_stack(block.stacks.low(i), block.stacks.high(i), &enter_fiber);
    f.tsan = tsan::create();
  }
  block.live = threads, block.started = false;
  block.pause = paces() ? unsigned(draw(256)) : 0;
}

/// Shuffled, the blocks of a cluster do not keep in step: they start late, and pause by chance.
void Machine::pace_blocks() {
  for (unsigned rank = 0; rank < launched.cluster; ++rank) {
    Block& block = *blocks_[rank];
    if (block.pause)
      --block.pause;
    else if (block.started && paces() && draw(3) == 0)
      block.pause = unsigned(draw(32));
    if (!block.pause) start(block);
  }
}

/// Ends the pause of a block, if it can of one that has started.  Whether there was one.
bool Machine::wake_a_block() {
  const unsigned first = unsigned(draw(launched.cluster));
  Block* found = nullptr;
  for (unsigned i = 0; i < launched.cluster; ++i) {
    Block& block = *blocks_[(first + i) % launched.cluster];
    if (block.pause && (!found || block.started)) found = &block;
  }
  if (!found) return false;
  found->pause = 0;
  start(*found);
  return true;
}

void Machine::start(Block& block) {
  if (!block.started) block.shared.start();
  block.started = true;
}

void Machine::end_block(Block& block) {
  block.shared.check(block.fibers[0].id);
  block.shared.end();
}

void Machine::resume(Fiber& fiber) {
  self_ = &fiber;
  running = &fiber.id;
  tsan::switch_to(fiber.tsan);
  fastdl_emulator_switch(&main_stack_, fiber.stack_pointer);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  Block& own = block();
  if (fiber.done && --own.live == 0) end_block(own);
}

/// Every thread that is ready gets a turn.  Whether there was one.
bool Machine::turn_of_all() {
  const unsigned threads = launched.block.count();
  shuffle(order_);
  bool moved = false;
  for (unsigned i : order_) {
    Block& block = *blocks_[i / threads];
    Fiber& fiber = block.fibers[i % threads];
    if (block.pause || !fiber.ready()) continue;
    resume(fiber);
    moved = true;
  }
  return moved;
}

void Machine::run_cluster(unsigned number) {
  const unsigned size = launched.cluster;
  for (unsigned rank = 0; rank < size; ++rank)
    place_block(*blocks_[rank], rank, number * size + rank);
  barrier_ = Meeting{size * launched.block.count(), 0, 0, {}, {}};
  auto live = [&] {
    unsigned n = 0;
    for (unsigned rank = 0; rank < size; ++rank) n += blocks_[rank]->live;
    return n;
  };
  tsan::release(&main_tsan_);
  while (live()) {
    pace_blocks();
    if (!turn_of_all() && !wake_a_block()) throw EmulatorError(deadlock());
  }
  tsan::acquire(&main_stack_);
}

std::string Machine::deadlock() const {
  std::string s = text(site_) + ": deadlock";
  for (unsigned rank = 0; rank < launched.cluster; ++rank) {
    const auto& fibers = blocks_[rank]->fibers;
    std::map<std::string, std::vector<unsigned>> waiting;
    std::vector<unsigned> ended;
    for (unsigned i = 0; i < launched.block.count(); ++i)
      fibers[i].done ? ended.push_back(i) : waiting[text(fibers[i].site)].push_back(i);
    s += (rank ? "; in block " : " in block ") + std::to_string(fibers[0].id.block.x) + ":";
    for (const auto& [site, threads] : waiting)
      s += " threads " + ranges(threads) + " wait at " + site + ";";
    s += ended.empty() ? " none has ended" : " threads " + ranges(ended) + " have ended";
  }
  return s;
}

void Machine::abandon() {
  for (auto& block : blocks_) {
    for (unsigned i = 0; i < block->fibers.size(); ++i) {
      Fiber& f = block->fibers[i];
      if (f.done) continue;
      f.done = true, f.stack_pointer = nullptr;
      forget_stack(block->stacks.low(i), block->stacks.high(i));
      tsan::switch_to(f.tsan);
      tsan::release(&main_stack_);
      tsan::switch_to(main_tsan_);
      tsan::destroy(f.tsan);
    }
    for (auto& warp : block->warps) warp.clear();
    block->live = 0;
    block->shared.end();
  }
  tsan::acquire(&main_stack_);
}

void Machine::check_shape(const Shape& shape, Site site) const {
  const unsigned threads = shape.block.count(), blocks = shape.grid.count();
  if (threads == 0 || threads > kMaxThreads || blocks == 0)
    throw EmulatorError(text(site) +
                        ": a launch must have 1 to 1024 threads in at least 1 block, "
                        "got " +
                        std::to_string(threads) + " in " + std::to_string(blocks));
  if (shape.cluster == 0 || shape.cluster > unsigned(max_cluster()) || blocks % shape.cluster)
    throw EmulatorError(text(site) + ": a cluster must have 1 to " + std::to_string(max_cluster()) +
                        " blocks and divide the grid, got " + std::to_string(shape.cluster) +
                        " of " + std::to_string(blocks));
}

void Machine::launch(const Shape& shape, Site site, void (*body)(void*), void* context) {
  check_shape(shape, site);
  launched = shape, site_ = site, body_ = body, context_ = context;
  main_tsan_ = tsan::current();
  layout_.clear();
  while (blocks_.size() < shape.cluster) blocks_.push_back(std::make_unique<Block>(layout_));
  for (auto& block : blocks_)
    for (auto& warp : block->warps) warp.clear();
  const char* seed = std::getenv("FASTDL_CUEMU_SHUFFLE");
  seed_ = seed ? std::strtoull(seed, nullptr, 10) : 0;
  random_ = seed_ + ++launches_;
  order_.resize(shape.cluster * shape.block.count());
  std::iota(order_.begin(), order_.end(), 0u);
  std::vector<unsigned> clusters(shape.grid.count() / shape.cluster);
  std::iota(clusters.begin(), clusters.end(), 0u);
  shuffle(clusters);
  try {
    for (unsigned cluster : clusters) run_cluster(cluster);
  } catch (...) {
    abandon();
    throw;
  }
}

// ---- the door ---------------------------------------------------------------------------------

int max_cluster() {
  const char* given = std::getenv("FASTDL_CUEMU_MAX_CLUSTER");
  return given ? std::atoi(given) : int(kMaxCluster);
}
void block_barrier(Site site) { machine().meet(machine().block().barrier, true, site); }
void cluster_barrier(Site site) { machine().meet(machine().cluster_barrier(), true, site); }
const Slot* warp_exchange(uint32_t mask, const Slot& given, bool orders_memory, Site site) {
  return machine().exchange(mask, given, orders_memory, site);
}
void* shared_array(const void* key, const char* name, size_t bytes, Site site) {
  return machine().shared_array(key, name, bytes, site);
}
void* shared_of_rank(const void* p, unsigned rank, Site site) {
  return machine().shared_of_rank(p, rank, site);
}
void copy_async(void* to, const void* from, size_t bytes, Site site) {
  machine().copy_async(to, from, bytes, site);
}
void commit_copies() { ++machine().self().groups; }
void wait_for_copies(size_t prior) { machine().wait_for_copies(prior); }
void launch(const Shape& shape, Site site, void (*body)(void*), void* context) {
  const std::lock_guard lock(turn());
  const DeviceAccess access;
  machine().launch(shape, site, body, context);
}

}  // namespace fastdl::emulator
