// What a running fiber does.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <utility>

#include "cuda/emulator/machine.h"
#include "cuda/emulator/switch.h"
#include "cuda/emulator/tsan.h"

namespace fastdl::emulator {

std::string text(Site site) {
  const char* slash = std::strrchr(site.file_name(), '/');
  return std::string(slash ? slash + 1 : site.file_name()) + ":" + std::to_string(site.line());
}

Stacks::Stacks() : page_(size_t(sysconf(_SC_PAGESIZE))) {
  const size_t all = kMaxThreads * (kBytes + page_);
  void* p = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char*>(p);
  for (unsigned i = 0; i < kMaxThreads; ++i) mprotect(low(i) - page_, page_, PROT_NONE);
}

Stacks::~Stacks() { munmap(base_, kMaxThreads * (kBytes + page_)); }

void Machine::fiber_loop() {
  for (;;) {
    tsan::acquire(&main_tsan_);
    try {
      body_(context_);
      if (!self().copies.empty())
        throw EmulatorError(text(self().site) +
                            ": a thread ended before it waited for its copy to shared memory");
    } catch (...) {
      error_ = std::current_exception();
    }
    tsan::release(&main_stack_);
    self().done = true;
    wait();
  }
}

void Machine::wait() {
  tsan::switch_to(main_tsan_);
  fastdl_emulator_switch(&self().stack_pointer, main_stack_);
}

void Machine::meet(Meeting& m, bool orders_memory, Site site) {
  if (m.arrived &&
      (m.site.line() != site.line() || std::strcmp(m.site.file_name(), site.file_name()) != 0))
    throw EmulatorError(text(site_) + ": threads of one block meet at different lines: " +
                        text(m.site) + " and " + text(site));
  char* token = &m.tokens[m.generation & 1];
  if (orders_memory) tsan::release(token);
  m.site = site;
  if (++m.arrived == m.expected) {
    m.arrived = 0;
    ++m.generation;
  } else {
    Fiber& f = self();
    f.waits = &m, f.generation = m.generation, f.site = site;
    wait();
    f.waits = nullptr;
  }
  if (orders_memory) tsan::acquire(token);
}

Exchange& Machine::exchange_of(unsigned warp, uint32_t mask) {
  auto& exchanges = block().warps[warp];
  for (auto& e : exchanges)
    if (e->mask == mask) return *e;
  const tsan::Unseen unseen;
  auto e = std::make_unique<Exchange>();
  e->mask = mask;
  e->meeting.expected = unsigned(__builtin_popcount(mask));
  std::memset(e->slots, 0xFF, sizeof e->slots);
  exchanges.push_back(std::move(e));
  return *exchanges.back();
}

const Slot* Machine::exchange(uint32_t mask, const Slot& given, bool orders_memory, Site site) {
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
  meet(e.meeting, orders_memory, site);
  return slots;
}

void* Machine::shared_array(const void* key, const char* name, size_t bytes, Site site) {
  const SharedLayout::Array* array = layout_.find(key);
  if (!array) {
    array = &layout_.add(key, name, bytes, site);
    for (unsigned rank = 0; rank < launched.cluster; ++rank)
      if (blocks_[rank]->live) blocks_[rank]->shared.prepare(*array);
  }
  return block().shared.base() + array->offset;
}

void* Machine::shared_of_rank(const void* p, unsigned rank, Site site) {
  if (rank >= launched.cluster || !block().shared.contains(p))
    throw EmulatorError(text(site) +
                        ": needs an address in shared memory and the rank of a block of the "
                        "cluster, got rank " +
                        std::to_string(rank) + " in a cluster of " +
                        std::to_string(launched.cluster));
  return blocks_[rank]->shared.base() + (static_cast<const char*>(p) - block().shared.base());
}

void Machine::copy_async(void* to, const void* from, size_t bytes, Site site) {
  const auto ends = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  if ((bytes != 4 && bytes != 8 && bytes != 16) || ends % bytes || !block().shared.contains(to))
    throw EmulatorError(text(site) +
                        ": an asynchronous copy takes 4, 8 or 16 bytes, aligned to as many, to "
                        "shared memory, got " +
                        std::to_string(bytes) + " bytes");
  std::memset(to, 0xFF, bytes);
  self().copies.push_back({to, from, bytes, self().groups});
  self().site = site;
}

void Machine::wait_for_copies(size_t prior) {
  auto& copies = self().copies;
  size_t n = 0;
  for (; n < copies.size() && copies[n].group + prior < self().groups; ++n)
    std::memcpy(copies[n].to, copies[n].from, copies[n].bytes);
  copies.erase(copies.begin(), copies.begin() + std::ptrdiff_t(n));
}

}  // namespace fastdl::emulator
