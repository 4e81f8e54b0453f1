// Many steps in one call: rows are gathered into the slots, the program runs, results pile up.
#include "core/program.h"

namespace fastdl {
namespace {

int64_t row_bytes(const View& v) { return v.shape[0] ? v.bytes() / v.shape[0] : 0; }

/// One row of u8 numbers (images) as floats.
template <class T>
void widen(const uint8_t* from, int64_t n, double scale, T* to) {
  const T factor = static_cast<T>(scale);
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]) * factor;
}

/// Fills a slot with rows of a source.
void gather(const View& source, const int64_t* rows, double scale, const View& slot, char* to) {
  const int64_t from_bytes = row_bytes(source), to_bytes = row_bytes(slot);
  const char* from = source.as<char>();
  for (int64_t i = 0; i < slot.shape[0]; ++i, to += to_bytes) {
    const char* row = from + rows[i] * from_bytes;
    if (source.dtype == slot.dtype)
      std::memcpy(to, row, size_t(to_bytes));
    else if (slot.dtype == DType::f32)
      widen(reinterpret_cast<const uint8_t*>(row), from_bytes, scale, reinterpret_cast<float*>(to));
    else
      widen(reinterpret_cast<const uint8_t*>(row), from_bytes, scale,
            reinterpret_cast<double*>(to));
  }
}

void check_source(const View& source, const View& slot, size_t i) {
  const bool widens =
      source.dtype == DType::u8 && (slot.dtype == DType::f32 || slot.dtype == DType::f64);
  bool fits = source.rank == slot.rank && slot.rank > 0 && (source.dtype == slot.dtype || widens);
  for (int d = 1; d < slot.rank; ++d) fits = fits && source.shape[d] == slot.shape[d];
  if (!fits)
    throw std::invalid_argument("program: source " + std::to_string(i) + " must hold rows of " +
                                describe(slot) + ", got " + describe(source));
}

void check_order(const Program::Steps& s, int64_t rows, int64_t batch) {
  if (!s.order && (s.first < 0 || s.first + s.count * batch > rows))
    throw std::invalid_argument("program: steps must stay within " + std::to_string(rows) +
                                " rows, got " + std::to_string(s.count * batch) + " from row " +
                                std::to_string(s.first));
  for (int64_t i = 0; s.order && i < s.count * batch; ++i)
    if (s.order[i] < 0 || s.order[i] >= rows)
      throw std::invalid_argument("program: order must be in 0.." + std::to_string(rows - 1) +
                                  ", got " + std::to_string(s.order[i]));
}

}  // namespace

int64_t Program::run_steps(const Steps& s) {
  if (s.sources.size() != slots_.size() || s.sources.empty())
    throw std::invalid_argument("program: sources must be " + std::to_string(slots_.size()) +
                                " arrays, got " + std::to_string(s.sources.size()));
  std::vector<int64_t> at(slots_.size());
  int64_t staging_bytes = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    check_source(s.sources[i], slots_[i], i);
    check_apart(s.sources[i], i);
    check_order(s, s.sources[i].shape[0], slots_[i].shape[0]);
    at[i] = staging_bytes;
    staging_bytes += aligned_bytes(slots_[i].bytes());
  }
  AlignedMemory staging;
  staging.reserve(std::max<int64_t>(staging_bytes, 1));
  const int64_t batch = slots_[0].shape[0];
  Lease lease(*this);
  std::vector<View> inputs = slots_;
  std::vector<void*> outputs = s.outputs;
  for (int64_t step = 0; step < s.count; ++step) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      const View& source = s.sources[i];
      if (!s.order && source.dtype == slots_[i].dtype && !writes_slot(i)) {
        inputs[i].data = source.as<char>() + (s.first + step * batch) * row_bytes(source);
        continue;
      }
      inputs[i].data = staging.data() + at[i];
      std::vector<int64_t> in_turn;
      const int64_t* rows = s.order ? s.order + step * batch : nullptr;
      if (!rows) {
        for (int64_t r = 0; r < batch; ++r) in_turn.push_back(s.first + step * batch + r);
        rows = in_turn.data();
      }
      gather(source, rows, s.scales[i], slots_[i], static_cast<char*>(inputs[i].data));
    }
    for (const Steps::Schedule& schedule : s.schedules) *schedule.target = schedule.values[step];
    for (size_t i = 0; i < outputs.size(); ++i)
      outputs[i] = static_cast<char*>(s.outputs[i]) + step * results_[i].bytes();
    bind(lease.instance(), inputs, outputs);
    validate(lease.instance());
    execute(lease.instance());
    copy_results(lease.instance(), inputs, outputs);
    if (s.go_on && !s.go_on(s.context)) return step + 1;
  }
  return s.count;
}

}  // namespace fastdl
