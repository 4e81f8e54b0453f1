#include "cuda/emulator/machine.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <utility>

#include "cuda/emulator/switch.h"

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

std::string text(Site site) {
  const char* slash = std::strrchr(site.file_name(), '/');
  return std::string(slash ? slash + 1 : site.file_name()) + ":" + std::to_string(site.line());
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

Stacks::Stacks() : page_(size_t(sysconf(_SC_PAGESIZE))) {
  const size_t all = kMaxThreads * (kBytes + page_);
  void* p = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char*>(p);
  for (unsigned i = 0; i < kMaxThreads; ++i) mprotect(low(i) - page_, page_, PROT_NONE);
}

Stacks::~Stacks() { munmap(base_, kMaxThreads * (kBytes + page_)); }

// ---- what a running fiber does ----------------------------------------------------------------

void Machine::fiber_loop() {
  for (;;) {
    try {
      body_(context_);
    } catch (...) {
      error_ = std::current_exception();
    }
    self().done = true;
    wait();
  }
}

void Machine::wait() { fastdl_emulator_switch(&self().stack_pointer, main_stack_); }

void Machine::meet(Meeting& m, Site site) {
  if (m.arrived &&
      (m.site.line() != site.line() || std::strcmp(m.site.file_name(), site.file_name()) != 0))
    throw EmulatorError(text(site_) + ": threads of one block meet at different lines: " +
                        text(m.site) + " and " + text(site));
  m.site = site;
  if (++m.arrived == m.expected) {
    m.arrived = 0;
    ++m.generation;
    return;
  }
  Fiber& f = self();
  f.waits = &m, f.generation = m.generation, f.site = site;
  wait();
  f.waits = nullptr;
}

Exchange& Machine::exchange_of(unsigned warp, uint32_t mask) {
  for (auto& e : warps_[warp])
    if (e->mask == mask) return *e;
  auto e = std::make_unique<Exchange>();
  e->mask = mask;
  e->meeting.expected = unsigned(__builtin_popcount(mask));
  std::memset(e->slots, 0xFF, sizeof e->slots);
  warps_[warp].push_back(std::move(e));
  return *warps_[warp].back();
}

const Slot* Machine::exchange(uint32_t mask, const Slot& given, Site site) {
  const Identity& id = *running;
  const unsigned warp = id.number / kWarp, lanes = launched.block.count() - warp * kWarp;
  const uint32_t exist = lanes >= kWarp ? ~0u : (1u << lanes) - 1;
  if (!(mask >> id.lane & 1) || mask & ~exist)
    throw EmulatorError(text(site) +
                        ": a mask must name the calling lane and only lanes that "
                        "exist; lane " +
                        std::to_string(id.lane) + " of a warp of " +
                        std::to_string(__builtin_popcount(exist)) + " gave " +
                        std::to_string(mask));
  Exchange& e = exchange_of(warp, mask);
  Slot* slots = e.slots[e.meeting.generation & 1];
  slots[id.lane] = given;
  meet(e.meeting, site);
  return slots;
}

// ---- the scheduler ----------------------------------------------------------------------------

template <class T>
void Machine::shuffle(std::vector<T>& order) {
  if (seed_ == 0) return;
  for (size_t i = order.size(); i > 1; --i) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    std::swap(order[i - 1], order[size_t((random_ >> 32) * i >> 32)]);
  }
}

void Machine::place_threads(unsigned block) {
  const unsigned threads = launched.block.count();
  barrier_ = Meeting{threads, 0, 0, {}};
  for (auto& warp : warps_)
    for (auto& e : warp) e->meeting.arrived = 0;
  shared_.clear();
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& f = fibers_[i];
    f.id = {place(i, launched.block), place(block, launched.grid), i, i % kWarp};
    f.done = false, f.waits = nullptr;
    if (!f.stack_pointer)
      f.stack_pointer = prepared_stack(stacks_.low(i), stacks_.high(i), &enter_fiber);
  }
  live_ = threads;
}

void Machine::resume(unsigned number) {
  running_ = number;
  running = &fibers_[number].id;
  fastdl_emulator_switch(&main_stack_, fibers_[number].stack_pointer);
  if (fibers_[number].done) --live_;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Machine::run_block(unsigned number) {
  place_threads(number);
  while (live_) {
    shuffle(order_);
    bool moved = false;
    for (unsigned i : order_) {
      if (!fibers_[i].ready()) continue;
      resume(i);
      moved = true;
    }
    if (!moved) throw EmulatorError(deadlock());
  }
  shared_.check(fibers_[0].id);
}

std::string Machine::deadlock() const {
  std::map<std::string, std::vector<unsigned>> waiting;
  std::vector<unsigned> ended;
  for (unsigned i = 0; i < launched.block.count(); ++i)
    fibers_[i].done ? ended.push_back(i) : waiting[text(fibers_[i].site)].push_back(i);
  std::string s =
      text(site_) + ": deadlock in block " + std::to_string(fibers_[0].id.block.x) + ":";
  for (const auto& [site, threads] : waiting)
    s += " threads " + ranges(threads) + " wait at " + site + ";";
  return s + (ended.empty() ? " none has ended" : " threads " + ranges(ended) + " have ended");
}

void Machine::abandon() {
  for (unsigned i = 0; i < fibers_.size(); ++i) {
    if (fibers_[i].done) continue;
    fibers_[i].done = true, fibers_[i].stack_pointer = nullptr;
    forget_stack(stacks_.low(i), stacks_.high(i));
  }
  for (auto& warp : warps_) warp.clear();
}

void Machine::launch(const Shape& shape, Site site, void (*body)(void*), void* context) {
  const unsigned threads = shape.block.count(), blocks = shape.grid.count();
  if (threads == 0 || threads > kMaxThreads || blocks == 0)
    throw EmulatorError(text(site) +
                        ": a launch must have 1 to 1024 threads in at least 1 block, "
                        "got " +
                        std::to_string(threads) + " in " + std::to_string(blocks));
  launched = shape, site_ = site, body_ = body, context_ = context;
  if (fibers_.size() < threads) fibers_.resize(threads);
  if (warps_.size() * kWarp < threads) warps_.resize((threads + kWarp - 1) / kWarp);
  for (auto& warp : warps_) warp.clear();
  const char* seed = std::getenv("FASTDL_CUEMU_SHUFFLE");
  seed_ = seed ? std::strtoull(seed, nullptr, 10) : 0;
  random_ = seed_ + ++launches_;
  order_.resize(threads);
  std::iota(order_.begin(), order_.end(), 0u);
  std::vector<unsigned> block_order(blocks);
  std::iota(block_order.begin(), block_order.end(), 0u);
  shuffle(block_order);
  try {
    for (unsigned block : block_order) run_block(block);
  } catch (...) {
    abandon();
    throw;
  }
}

// ---- the door ---------------------------------------------------------------------------------

void block_barrier(Site site) { machine().meet(machine().barrier(), site); }
const Slot* warp_exchange(uint32_t mask, const Slot& given, Site site) {
  return machine().exchange(mask, given, site);
}
void* shared_array(const void* key, const char* name, size_t bytes, Site site) {
  return machine().shared_array(key, name, bytes, site);
}
void launch(const Shape& shape, Site site, void (*body)(void*), void* context) {
  const std::lock_guard lock(turn());
  machine().launch(shape, site, body, context);
}

}  // namespace fastdl::emulator
