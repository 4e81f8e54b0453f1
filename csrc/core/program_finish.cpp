// From a recording to what is replayed: whose memory everything is, which calls matter, and where
// the temporaries lie.
#include <algorithm>
#include <span>

#include "core/program.h"

namespace fastdl {
namespace {

int find_block(const std::vector<MemoryBlock>& blocks, const MemoryBlock& m) {
  for (size_t i = 0; i < blocks.size(); ++i)
    if (m.bytes > 0 && blocks[i].holds(m.data, m.bytes)) return int(i);
  return -1;
}

}  // namespace

/// Owned blocks whose first use overwrites all of them become temporaries.  Those that are read
/// first hold values from elsewhere: they stay, and are named in `frozen`.
void Program::settle_homes(const std::vector<MemoryBlock>& owned, std::vector<Frozen>* frozen) {
  enum State { unseen, temporary, fixed };
  std::vector<State> state(owned.size(), unseen);
  std::vector<int> index(owned.size(), -1);
  for (size_t i = 0; i < uses_.size();) {
    size_t end = i;
    while (end < uses_.size() && uses_[end].call == uses_[i].call) ++end;
    for (const bool reads : {true, false})  // within a call, reading comes first
      for (size_t u = i; u < end; ++u) {
        const int k = uses_[u].home == Home::fixed ? find_block(owned, uses_[u].memory) : -1;
        if (k < 0 || state[k] != unseen || (uses_[u].role != Role::out) != reads) continue;
        const bool whole = uses_[u].memory.bytes == owned[k].bytes;
        state[k] = !reads && whole ? temporary : fixed;
        if (reads) frozen->push_back({k, calls_[uses_[u].call].where});
      }
    i = end;
  }
  for (Use& u : uses_) {
    const int k = u.home == Home::fixed ? find_block(owned, u.memory) : -1;
    if (k < 0 || state[k] != temporary) continue;
    if (index[k] < 0) {
      index[k] = int(temporaries_.size());
      temporaries_.push_back({u.call, u.call, owned[k].bytes});
    }
    u.home = Home::temporary, u.index = index[k];
    u.delta = u.memory.data + u.shift - owned[k].data;
  }
}

/// Where a result is when the calls have run: in an input, a temporary, or where it was.
Program::Use Program::place_of(const View& result) const {
  Use place{0, 0, Role::in, false, false, {static_cast<char*>(result.data), result.bytes()}, 0};
  const auto found = [&](Home home, int index, char* start, int64_t size) {
    if (!MemoryBlock{start, size}.holds(place.memory.data, place.memory.bytes)) return false;
    place.home = home, place.index = index, place.delta = place.memory.data - start;
    return true;
  };
  if (place.memory.bytes == 0) return place;
  for (size_t i = 0; i < slots_.size(); ++i)
    if (found(Home::slot, int(i), slots_[i].as<char>(), slots_[i].bytes())) return place;
  for (const Use& u : uses_)
    if (u.home == Home::temporary &&
        found(u.home, u.index, u.memory.data + u.shift - u.delta, temporaries_[u.index].bytes))
      return place;
  return place;
}

/// A temporary that is one whole result is bound to the caller's memory; other results are copied.
void Program::adopt_results() {
  for (const View& v : results_) result_uses_.push_back(place_of(v));
  std::vector<int> readers(temporaries_.size(), 0), result(temporaries_.size(), -1);
  for (const Use& r : result_uses_)
    if (r.home == Home::temporary) ++readers[r.index];
  for (size_t i = 0; i < result_uses_.size(); ++i) {
    Use& r = result_uses_[i];
    if (r.home != Home::temporary || readers[r.index] != 1) continue;
    if (r.memory.bytes != temporaries_[r.index].bytes) continue;
    result[r.index] = int(i);
    r.home = Home::result, r.index = int(i);
  }
  for (Use& u : uses_)
    if (u.home == Home::temporary && result[u.index] >= 0)
      u.home = Home::result, u.index = result[u.index];
}

/// Makes an optional output one that is not given.
void Program::leave_out(Use& u) {
  const View none;
  std::memcpy(main_.at(u.view), &none, sizeof none);
  u.call = -1;
}

/// Drops calls whose results nobody reads, and outputs that may be left out.
void Program::drop_dead_calls() {
  std::vector<bool> needed(temporaries_.size(), false), live(calls_.size(), false);
  for (const Use& r : result_uses_)
    if (r.home == Home::temporary) needed[r.index] = true;
  const auto matters = [&](const Use& u) {
    return u.role != Role::in && (u.home != Home::temporary || needed[u.index]);
  };
  for (size_t end = uses_.size(); end > 0;) {
    size_t first = end - 1;
    while (first > 0 && uses_[first - 1].call == uses_[end - 1].call) --first;
    const int call = uses_[first].call;
    const auto uses = std::span(uses_).subspan(first, end - first);
    live[call] = std::any_of(uses.begin(), uses.end(), matters);
    if (live[call]) {
      for (Use& u : uses)
        if (u.role == Role::out && u.optional && !matters(u)) leave_out(u);
      // A full write ends the need for what was there before; a read starts it.
      for (const Use& u : uses)
        if (u.role == Role::out && u.home == Home::temporary &&
            u.memory.bytes == temporaries_[u.index].bytes)
          needed[u.index] = false;
      for (const Use& u : uses)
        if (u.role != Role::out && u.home == Home::temporary) needed[u.index] = true;
    }
    end = first;
  }
  remove_calls(live);
}

void Program::remove_calls(const std::vector<bool>& live) {
  std::vector<int> moved(calls_.size(), -1);
  std::vector<Call> kept;
  for (size_t i = 0; i < calls_.size(); ++i)
    if (live[i]) moved[i] = int(kept.size()), kept.push_back(std::move(calls_[i]));
  calls_ = std::move(kept);
  std::vector<Use> uses;
  for (Use& u : uses_) {
    if (u.call < 0 || moved[u.call] < 0) continue;
    u.call = moved[u.call];
    uses.push_back(u);
  }
  uses_ = std::move(uses);
}

/// A call that checks integers (labels, indices) which an earlier call writes.
void Program::find_late_checks() {
  for (const Use& u : uses_) {
    if (!u.counts || u.role == Role::out || !calls_[u.call].entry->validate) continue;
    for (const Use& w : uses_)
      if (w.call < u.call && w.role != Role::in && u.memory.meets(w.memory))
        calls_[u.call].late = true;
  }
}

void Program::place_temporaries() {
  for (Lifetime& t : temporaries_) t.first = int(calls_.size()), t.last = -1;
  for (const Use& u : uses_) {
    if (u.home != Home::temporary) continue;
    Lifetime& t = temporaries_[u.index];
    t.first = std::min(t.first, u.call), t.last = std::max(t.last, u.call);
  }
  for (const Use& r : result_uses_)  // copied out after the last call
    if (r.home == Home::temporary) temporaries_[r.index].last = int(calls_.size());
  for (Lifetime& t : temporaries_)
    if (t.last < 0) t.bytes = 0;
  place(temporaries_);
}

std::vector<Program::Frozen> Program::finish(const std::vector<MemoryBlock>& owned,
                                             std::vector<View> results) {
  results_ = std::move(results);
  std::vector<Frozen> frozen;
  fuse(owned);
  settle_homes(owned, &frozen);
  if (!frozen.empty()) {
    undo();
    return frozen;
  }
  undo_.clear();
  adopt_results();
  drop_dead_calls();
  find_late_checks();
  find_chains();
  place_temporaries();
  pure_ = std::none_of(uses_.begin(), uses_.end(), [](const Use& u) {
    return u.role != Role::in && (u.home == Home::fixed || u.home == Home::slot);
  });
  outside_ = written();
  prepare(main_);
  return frozen;
}

}  // namespace fastdl
