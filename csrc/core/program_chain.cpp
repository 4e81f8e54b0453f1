// Element-wise calls in a row run block by block: what one writes the next reads from the cache, and
// what only they use never reaches memory.
#include <algorithm>

#include "core/parallel.h"
#include "core/program.h"

namespace fastdl {
namespace {

/// Elements of a block: 16 KiB of f32, so that the arrays of a few calls fit L1 and L2.
constexpr int64_t kBlock = 4096;

/// Chains that move less stay in the cache anyway.
constexpr int64_t kLeastBytes = 512 * 1024;

}  // namespace

/// Whether a call may follow others of `size` elements in a chain that begins with call `first`:
/// where it meets what they write (or they what it writes), it is element by element.
bool Program::may_join(int first, int call, int64_t size) const {
  const Call& c = calls_[call];
  if (!c.entry->chain_size || c.late || c.entry->chain_size(main_.at(c.offset)) != size)
    return false;
  for (const Use& u : uses_) {
    if (u.call != call) continue;
    for (const Use& v : uses_) {
      if (v.call < first || v.call >= call || !u.memory.meets(v.memory)) continue;
      const bool same = u.memory.data == v.memory.data && u.memory.bytes == v.memory.bytes;
      if (!same && (u.role != Role::in || v.role != Role::in)) return false;
    }
  }
  return true;
}

void Program::find_chains() {
  for (int first = 0; first < int(calls_.size()); ++first) {
    const Call& c = calls_[first];
    const int64_t size = c.entry->chain_size ? c.entry->chain_size(main_.at(c.offset)) : 0;
    if (size <= kBlock) continue;
    int end = first;
    int64_t bytes = 0;
    while (end < int(calls_.size()) && may_join(first, end, size))
      bytes += calls_[end].entry->info(main_.at(calls_[end].offset)).bytes, ++end;
    if (end - first < 2 || bytes < kLeastBytes) continue;
    chains_.push_back({first, end, size, bytes});
    first = end - 1;
  }
  for (Chain& chain : chains_) keep_in_blocks(chain);
}

/// Temporaries that only the chain uses need no more memory than a block.
void Program::keep_in_blocks(Chain& chain) {
  std::vector<bool> outside(temporaries_.size(), false);
  const auto inside = [&](const Use& u) { return u.call >= chain.first && u.call < chain.end; };
  for (const Use& u : uses_)
    if (u.home == Home::temporary && !inside(u)) outside[u.index] = true;
  for (const Use& r : result_uses_)
    if (r.home == Home::temporary) outside[r.index] = true;
  std::vector<int> local(temporaries_.size(), -1);
  for (Use& u : uses_) {
    if (u.home != Home::temporary || !inside(u) || outside[u.index]) continue;
    if (local[u.index] < 0) local[u.index] = chain.locals++;
    u.home = Home::block;
    calls_[u.call].locals.push_back({u.view - calls_[u.call].offset, local[u.index]});
  }
  const int64_t need = chain.locals * kBlock * int64_t{sizeof(double)};
  scratch_.thread_bytes = std::max(scratch_.thread_bytes, need);
}

void Program::run_chain(const Chain& chain, Instance& instance, const Workspace& ws) const {
  struct Context {
    const Program& p;
    const Chain& chain;
    Instance& instance;
    const Workspace& ws;
    const Backend& backend;
  } context{*this, chain, instance, ws, backend()};
  const auto body = [](void* p, int64_t block, int worker) {
    auto& c = *static_cast<Context*>(p);
    const int64_t first = block * kBlock, count = std::min(kBlock, c.chain.size - first);
    char* const scratch = c.ws.of_thread(worker);
    for (int i = c.chain.first; i < c.chain.end; ++i) {
      const Call& call = c.p.calls_[i];
      call.entry->run_slice(c.backend, c.instance.at(call.offset),
                            {first, count, call.locals, scratch, kBlock});
    }
  };
  run_chunks((chain.size + kBlock - 1) / kBlock, chain.bytes, body, &context);
}

}  // namespace fastdl
