#include "core/replicas.h"

#include <algorithm>
#include <exception>
#include <memory>

#include "core/parallel.h"

namespace fastdl {
namespace {

/// Calls body(i) for every i < n; the first exception comes out when all are done.
void share_out(size_t n, double work, const std::function<void(size_t)>& body) {
  std::vector<std::exception_ptr> errors(n);
  struct Context {
    const std::function<void(size_t)>& body;
    std::vector<std::exception_ptr>& errors;
  } context{body, errors};
  run_chunks(
      int64_t(n), int64_t(work),
      [](void* p, int64_t i, int) {
        auto& c = *static_cast<Context*>(p);
        try {
          c.body(size_t(i));
        } catch (...) {
          c.errors[size_t(i)] = std::current_exception();
        }
      },
      &context);
  for (const auto& e : errors)
    if (e) std::rethrow_exception(e);
}

double total_work(const std::vector<Program*>& programs) {
  return programs.empty() ? 0 : double(programs.size()) * programs[0]->work();
}

}  // namespace

void run_replicas(const std::vector<Program*>& programs,
                  const std::vector<std::vector<View>>& inputs,
                  const std::vector<std::vector<void*>>& outputs) {
  std::vector<std::unique_ptr<Program::Run>> runs;
  for (size_t i = 0; i < programs.size(); ++i)
    runs.push_back(std::make_unique<Program::Run>(*programs[i], inputs[i], outputs[i]));
  share_out(runs.size(), total_work(programs), [&](size_t i) { runs[i]->go(); });
}

void run_replicas(const std::vector<Program*>& programs, const std::vector<Program::Steps>& steps) {
  const double count = steps.empty() ? 0 : double(steps[0].count);
  share_out(programs.size(), count * total_work(programs),
            [&](size_t i) { programs[i]->run_steps(steps[i]); });
}

void check_apart(const std::vector<Program*>& programs) {
  struct Range {
    const char *first, *last;
    size_t program;
    std::string writer;  // empty: it only reads
  };
  std::vector<Range> ranges;
  for (size_t i = 0; i < programs.size(); ++i) {
    for (const MemoryBlock& b : programs[i]->fixed_memory())
      ranges.push_back({b.data, b.data + b.bytes, i, ""});
    for (const auto& w : programs[i]->written())
      ranges.push_back({w.memory.data, w.memory.data + w.memory.bytes, i, w.by});
  }
  std::sort(ranges.begin(), ranges.end(), [](auto& a, auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < ranges.size(); ++i)
    for (size_t j = i + 1; j < ranges.size() && ranges[j].first < ranges[i].last; ++j) {
      const Range &a = ranges[i], &b = ranges[j];
      if (a.program == b.program || (a.writer.empty() && b.writer.empty())) continue;
      throw std::invalid_argument(
          "replicas must not share what they write, got memory of replicas " +
          std::to_string(std::min(a.program, b.program)) + " and " +
          std::to_string(std::max(a.program, b.program)) + " that is written by " +
          (a.writer.empty() ? b.writer : a.writer) +
          "; give each its own model, optimizer and generator (nn.Ensemble does)");
    }
}

}  // namespace fastdl
