// Neighbours that become one call.
#include <algorithm>

#include "core/fusion.h"
#include "core/program.h"
#include "fusions.def"

namespace fastdl {
namespace {

template <class First, class Second>
constexpr FusionRule rule_of() {
  return {First::name, Second::name, [](void* first, const void* second) {
            return absorb(*static_cast<First*>(first), *static_cast<const Second*>(second));
          }};
}

}  // namespace

const std::vector<FusionRule>& fusion_rules() {
  static const std::vector<FusionRule> rules = {
#define FASTDL_FUSION(First, Second) rule_of<First, Second>(),
#include "fusions.def"
#undef FASTDL_FUSION
  };
  return rules;
}

/// Whether the second call may run as a part of the first: nobody in between writes what it reads,
/// and neither they nor the first call touch what it writes.
bool Program::may_move_up(int first, int second) const {
  for (const Use& u : uses_) {
    if (u.call != second) continue;
    for (const Use& other : uses_) {
      if (other.call < first || other.call >= second || !u.memory.meets(other.memory)) continue;
      const bool reads = u.role == Role::in;
      if (!reads || (other.role != Role::in && other.call != first)) return false;
    }
  }
  return true;
}

/// The call that writes the memory that `reader` reads, if the two are its only uses; else -1.
int Program::only_writer(const Use& reader, const std::vector<MemoryBlock>& owned) const {
  const auto block = std::find_if(owned.begin(), owned.end(), [&](const MemoryBlock& b) {
    return b.holds(reader.memory.data, reader.memory.bytes);
  });
  if (reader.role != Role::in || reader.memory.bytes == 0 || block == owned.end()) return -1;
  int writer = -1;
  for (const Use& u : uses_) {
    if (&u == &reader || u.memory.bytes == 0 || !u.memory.meets(*block)) continue;
    const bool whole = u.memory.data == reader.memory.data && u.memory.bytes == reader.memory.bytes;
    if (writer >= 0 || u.role != Role::out || !whole || u.call >= reader.call) return -1;
    writer = u.call;
  }
  for (const View& r : results_)
    if (block->meets({static_cast<char*>(r.data), r.bytes()})) return -1;
  return writer;
}

bool Program::absorb(int first, int second) {
  for (const FusionRule& rule : fusion_rules()) {
    if (calls_[first].entry->name != rule.first) continue;
    if (calls_[second].entry->name != rule.second) continue;
    if (!may_move_up(first, second)) return false;
    if (rule.absorb(main_.at(calls_[first].offset), main_.at(calls_[second].offset))) return true;
  }
  return false;
}

void Program::fuse(const std::vector<MemoryBlock>& owned) {
  for (int second = 1; second < int(calls_.size()); ++second) {
    const auto fits = [&](const FusionRule& r) { return r.second == calls_[second].entry->name; };
    if (std::none_of(fusion_rules().begin(), fusion_rules().end(), fits)) continue;
    for (size_t u = 0; u < uses_.size(); ++u) {
      if (uses_[u].call != second) continue;
      const int first = only_writer(uses_[u], owned);
      if (first < 0 || !absorb(first, second)) continue;
      calls_.erase(calls_.begin() + second--);
      locate_all();
      break;
    }
  }
}

/// Finds the arrays of all calls anew, after ops have changed.
void Program::locate_all() {
  uses_.clear();
  std::vector<Call> calls = std::move(calls_);
  calls_.clear();
  for (Call& c : calls) {
    c.entry->locate(*this, c.offset, main_.at(c.offset));
    calls_.push_back(std::move(c));
  }
}

}  // namespace fastdl
