#include "core/program.h"

#include <algorithm>
#include <chrono>

#include "core/parallel.h"

namespace fastdl {
namespace {

thread_local Program* recording_program = nullptr;
thread_local AlignedMemory scratch_memory;

/// Every so many runs is timed call by call, for the listing; the first is cold.
constexpr int64_t kTimedEvery = 32;

double now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(t).count();
}

bool same_shape(const View& a, const View& b) {
  return a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape);
}

}  // namespace

Workspace workspace_for(const Scratch& need) {
  const int64_t shared = aligned_bytes(need.shared_bytes), each = aligned_bytes(need.thread_bytes);
  const int64_t total = shared + each * team_limit();
  if (total == 0) return {};
  char* data = scratch_memory.reserve(total);
  return {data, data + shared, each, nullptr};
}

Program* recording() { return recording_program; }
void set_recording(Program* p) { recording_program = p; }

// ---- recording ---------------------------------------------------------------------------------

void Program::add_use(const View& v, size_t offset, const ArraySpec& spec) {
  const auto [first, last] = extent(v);
  char* data = const_cast<char*>(first);
  Use use{offset, int(calls_.size()), spec.role, spec.optional, false, {data, last - first}, 0};
  use.counts = v.dtype == DType::i32 || v.dtype == DType::i64 || v.dtype == DType::u8;
  use.shift = static_cast<const char*>(v.data) - first;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const MemoryBlock slot{static_cast<char*>(slots_[i].data), slots_[i].bytes()};
    if (use.memory.bytes == 0 || !slot.holds(data, use.memory.bytes)) continue;
    use.home = Home::slot, use.index = int(i);
    use.delta = static_cast<const char*>(v.data) - slot.data;
    written_.resize(slots_.size());
    if (spec.role != Role::in) written_[i] = true;
  }
  uses_.push_back(use);
}

void Program::save_outputs(const std::vector<MemoryBlock>& fresh) {
  for (auto u = uses_.rbegin(); u != uses_.rend() && u->call + 1 == int(calls_.size()); ++u) {
    const MemoryBlock& m = u->memory;
    const auto covers = [&](const MemoryBlock& b) { return b.holds(m.data, m.bytes); };
    const auto saved = [&](const Saved& s) { return s.memory.holds(m.data, m.bytes); };
    if (u->role == Role::in || m.bytes == 0) continue;
    if (u->role == Role::out && std::any_of(fresh.begin(), fresh.end(), covers)) continue;
    if (std::any_of(undo_.begin(), undo_.end(), saved)) continue;
    undo_.push_back({m, std::make_unique<AlignedMemory>()});
    std::memcpy(undo_.back().values->reserve(m.bytes), m.data, size_t(m.bytes));
  }
}

void Program::undo() {
  for (auto s = undo_.rbegin(); s != undo_.rend(); ++s)
    std::memcpy(s->memory.data, s->values->data(), size_t(s->memory.bytes));
  undo_.clear();
}

std::vector<MemoryBlock> Program::fixed_memory() const {
  std::vector<MemoryBlock> blocks;
  for (const Use& u : uses_)
    if (u.home == Home::fixed && u.memory.bytes > 0) blocks.push_back(u.memory);
  for (const Use& r : result_uses_)
    if (r.home == Home::fixed && r.memory.bytes > 0) blocks.push_back(r.memory);
  return blocks;
}

std::vector<Program::Written> Program::written() const {
  std::vector<Written> list;
  for (const Use& u : uses_) {
    if (u.home != Home::fixed || u.role == Role::in || u.memory.bytes == 0) continue;
    const auto same = [&](const Written& w) {
      return w.memory.data == u.memory.data && w.memory.bytes == u.memory.bytes;
    };
    const Call& call = calls_[u.call];
    if (std::none_of(list.begin(), list.end(), same))
      list.push_back({u.memory, std::string(call.entry->name) + " at " + call.where});
  }
  return list;
}

// ---- replay ------------------------------------------------------------------------------------

Program::Lease::Lease(Program& p) : p_(p), lock_(p.running_, std::defer_lock) {
  if (!p.pure_)
    lock_.lock();
  else if (!lock_.try_lock())
    spare_ = p.take_spare();
}

Program::Lease::~Lease() {
  if (!spare_) return;
  std::lock_guard<std::mutex> guard(p_.spares_lock_);
  p_.spares_.push_back(std::move(spare_));
}

std::unique_ptr<Program::Instance> Program::take_spare() {
  {
    std::lock_guard<std::mutex> guard(spares_lock_);
    if (!spares_.empty()) {
      auto spare = std::move(spares_.back());
      spares_.pop_back();
      return spare;
    }
  }
  auto spare = std::make_unique<Instance>();
  spare->ops = main_.ops;
  prepare(*spare);
  return spare;
}

void Program::check_inputs(const std::vector<View>& inputs) const {
  if (inputs.size() != slots_.size())
    throw std::invalid_argument("program: inputs must be " + std::to_string(slots_.size()) +
                                " arrays, got " + std::to_string(inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const View &want = slots_[i], &got = inputs[i];
    const bool same_dtype = want.dtype == got.dtype;
    if (same_dtype && same_shape(want, got)) {
      if (writes_slot(i) && got.readonly)
        throw std::invalid_argument("program: input " + std::to_string(i) +
                                    " is written by the program and must be writeable, got a "
                                    "read-only " +
                                    describe(got) + "; pass a copy");
      check_apart(got, i);
      continue;
    }
    const std::string text = "program: input " + std::to_string(i) + " must be " + describe(want) +
                             ", got " + describe(got);
    if (!same_dtype) throw DTypeError(text);
    throw std::invalid_argument(text);
  }
}

/// An input was an array of its own when the calls were fused and put in blocks.
void Program::check_apart(const View& input, size_t i) const {
  for (const Written& w : outside_)
    if (w.memory.meets({input.as<char>(), input.bytes()}))
      throw std::invalid_argument("program: input " + std::to_string(i) +
                                  " must not share memory with what the program writes, got one "
                                  "that shares it with " +
                                  w.by + "; pass a copy");
}

/// Points the instance's ops at its own temporaries; the rest is bound before each run.
void Program::prepare(Instance& instance) const {
  int64_t total = 0;
  for (const Lifetime& b : temporaries_) total = std::max(total, b.offset + aligned_bytes(b.bytes));
  const char* base = instance.memory.reserve(std::max<int64_t>(total, 1));
  for (const Use& u : uses_)
    if (u.home == Home::temporary) instance.bind(u, base + temporaries_[u.index].offset);
}

void Program::bind(Instance& instance, const std::vector<View>& inputs,
                   const std::vector<void*>& outputs) const {
  for (const Use& u : uses_) {
    if (u.home == Home::slot) instance.bind(u, inputs[u.index].data);
    if (u.home == Home::result) instance.bind(u, outputs[u.index]);
  }
}

void Program::validate(Instance& instance) const {
  for (const Call& c : calls_)
    if (c.entry->validate && !c.late) c.entry->validate(instance.at(c.offset));
}

void Program::execute(Instance& instance) {
  const Workspace ws = workspace_for(scratch_);
  const bool timed = &instance == &main_ && ++runs_ % kTimedEvery == 2;
  auto chain = chains_.begin();
  double start = timed ? now() : 0;
  for (int i = 0; i < int(calls_.size()); ++i) {
    Call& c = calls_[i];
    if (chain != chains_.end() && chain->first == i) {
      run_chain(*chain, instance, ws);
      i = chain++->end - 1;
    } else {
      if (c.late) c.entry->validate(instance.at(c.offset));
      c.entry->run(backend(), instance.at(c.offset), ws);
    }
    if (!timed) continue;
    const double stop = now();
    c.seconds = c.timed++ ? std::min(c.seconds, stop - start) : stop - start;
    start = stop;
  }
}

const char* Program::location(const Instance& instance, const Use& u) const {
  if (u.home == Home::temporary)
    return instance.memory.data() + temporaries_[u.index].offset + u.delta;
  return u.memory.data + u.shift;
}

void Program::copy_results(const Instance& instance, const std::vector<View>& inputs,
                           const std::vector<void*>& outputs) const {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Use& u = result_uses_[i];
    if (u.home == Home::result || results_[i].bytes() == 0) continue;
    const char* from = u.home == Home::slot
                           ? static_cast<const char*>(inputs[u.index].data) + u.delta
                           : location(instance, u);
    std::memcpy(outputs[i], from, size_t(results_[i].bytes()));
  }
}

Program::Run::Run(Program& p, std::vector<View> inputs, std::vector<void*> outputs)
    : p_(p), inputs_(std::move(inputs)), outputs_(std::move(outputs)), lease_(p) {
  p_.check_inputs(inputs_);
  p_.bind(lease_.instance(), inputs_, outputs_);
  p_.validate(lease_.instance());
}

void Program::Run::go() {
  p_.execute(lease_.instance());
  p_.copy_results(lease_.instance(), inputs_, outputs_);
}

double Program::work() const {
  double bytes = 0;
  for (const Call& c : calls_) {
    const CallInfo info = c.entry->info(main_.at(c.offset));
    bytes += double(info.bytes) + info.flops / 4;
  }
  return bytes;
}

// ---- listing -----------------------------------------------------------------------------------

std::vector<Program::CallInfo> Program::calls() const {
  std::vector<CallInfo> list;
  for (const Call& c : calls_) {
    list.push_back(c.entry->info(main_.at(c.offset)));
    list.back().where = c.where;
    list.back().timed = c.timed;
    const int i = int(list.size()) - 1;
    for (const Chain& chain : chains_)
      if (i > chain.first && i < chain.end) list.back().joined = true;
    list.back().seconds = c.seconds;
  }
  return list;
}

Program::Memory Program::memory() const {
  Memory m{};
  for (const Lifetime& b : temporaries_) {
    m.temporaries = std::max(m.temporaries, b.offset + aligned_bytes(b.bytes));
    m.without_reuse += aligned_bytes(b.bytes);
  }
  std::vector<MemoryBlock> fixed = fixed_memory();
  std::sort(fixed.begin(), fixed.end(), [](auto& a, auto& b) { return a.data < b.data; });
  const char* end = nullptr;  // blocks may overlap: a parameter and the arena it lies in
  for (const MemoryBlock& b : fixed) {
    const char* last = b.data + b.bytes;
    const char* from = end && b.data < end ? end : b.data;
    if (last > from) m.fixed += last - from, end = last;
  }
  for (const View& v : slots_) m.slots += v.bytes();
  for (const View& v : results_) m.results += v.bytes();
  m.scratch =
      aligned_bytes(scratch_.shared_bytes) + aligned_bytes(scratch_.thread_bytes) * num_threads();
  return m;
}

}  // namespace fastdl
