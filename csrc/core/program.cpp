#include "core/program.h"

#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/parallel.h"

namespace fastdl {
namespace {

thread_local Program* recording_program = nullptr;

constexpr int64_t kHugePage = int64_t{2} << 20;

/// A block that grows and is freed with its thread.  From a quarter of a huge page on it asks for
/// huge pages: packed blocks are read so fast that misses of the page table show (2-5 % of a GEMM).
struct Arena {
  char* data = nullptr;
  int64_t capacity = 0;
  ~Arena() { std::free(data); }
  char* reserve(int64_t bytes) {
    if (bytes <= capacity) return data;
    std::free(data);
    data = nullptr, capacity = 0;
    const bool huge = bytes >= kHugePage / 4;
    const int64_t unit = huge ? kHugePage : 64;
    const int64_t size = (bytes + unit - 1) / unit * unit;
    data = static_cast<char*>(
        std::aligned_alloc(static_cast<size_t>(unit), static_cast<size_t>(size)));
    if (!data) throw std::bad_alloc();
#if defined(__linux__)
    if (huge) madvise(data, static_cast<size_t>(size), MADV_HUGEPAGE);
#endif
    capacity = size;
    return data;
  }
};
thread_local Arena arena;

}  // namespace

Workspace workspace_for(const Scratch& need) {
  const int64_t shared = aligned_bytes(need.shared_bytes), each = aligned_bytes(need.thread_bytes);
  const int64_t total = shared + each * num_threads();
  if (total == 0) return {};
  char* data = arena.reserve(total);
  return {data, data + shared, each};
}

void Program::locate(const View& v, size_t offset, bool written) {
  const char* p = static_cast<const char*>(v.data);
  for (size_t i = 0; i < slots_.size(); ++i) {
    const char* first = static_cast<const char*>(slots_[i].data);
    if (p < first || p >= first + slots_[i].bytes()) continue;
    uses_.push_back({offset, static_cast<int>(i), p - first});
    if (written) written_[i] = true;
  }
}

void Program::check_inputs(const std::vector<View>& inputs) const {
  if (inputs.size() != slots_.size())
    throw std::invalid_argument("program: inputs must be " + std::to_string(slots_.size()) +
                                " arrays, got " + std::to_string(inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const View &want = slots_[i], &got = inputs[i];
    const bool same_dtype = want.dtype == got.dtype;
    if (same_dtype && want.rank == got.rank &&
        std::memcmp(want.shape, got.shape, sizeof(int64_t) * want.rank) == 0) {
      if (written_[i] && got.readonly)
        throw std::invalid_argument("program: input " + std::to_string(i) +
                                    " is written by the program and must be writeable, got a "
                                    "read-only " +
                                    describe(got) + "; pass a copy");
      continue;
    }
    const std::string text = "program: input " + std::to_string(i) + " must be " + describe(want) +
                             ", got " + describe(got);
    if (!same_dtype) throw DTypeError(text);
    throw std::invalid_argument(text);
  }
}

void Program::bind(const std::vector<View>& inputs) {
  for (const Use& u : uses_) {
    void* p = static_cast<char*>(inputs[u.slot].data) + u.delta;
    std::memcpy(at(u.offset), &p, sizeof p);
  }
}

void Program::run(const std::vector<View>& inputs) {
  std::lock_guard<std::mutex> lock(running_);
  check_inputs(inputs);
  const Workspace ws = workspace_for(scratch_);
  bind(inputs);
  for (const Call& c : calls_)
    if (c.entry->validate) c.entry->validate(at(c.offset));
  const Backend& b = backend();
  for (const Call& c : calls_) c.entry->run(b, at(c.offset), ws);
}

std::vector<Program::CallInfo> Program::calls() const {
  std::vector<CallInfo> list;
  for (const Call& c : calls_) list.push_back(c.entry->info(at(c.offset)));
  return list;
}

Program* recording() { return recording_program; }
void set_recording(Program* p) { recording_program = p; }

}  // namespace fastdl
