#include "core/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "core/cpu_count.h"

namespace fastdl {
namespace {

// About 5 us of work.  A fork and join costs 0.2-1.2 us, but lines that the other core wrote are what
// small calls wait for: with 48 KiB a captured step of a 4-64-64-2 net took 44 us on two threads and
// 24 us on one.
std::atomic<int64_t> thread_work{160 * 1024};
// Workers spin about 20 us for the next call, then sleep until they are notified.
constexpr int kSpins = 500;

/// Whether this thread is working on a chunk of a job: what it calls runs on this thread alone.
thread_local bool inside_job = false;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// One job at a time.  A job is open while `state_` says so; workers join by counting themselves
/// in, and the caller waits only for those that joined: a sleeping worker never delays a call.
class Pool {
 public:
  /// Runs the job on up to `team` threads, the caller's included; false if another one is running.
  bool run(int64_t chunks, int team, void (*body)(void*, int64_t, int), void* context) {
    std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock) return false;
    if (!grow(team - 1)) return false;
    body_ = body, context_ = context, chunks_ = chunks;
    next_.store(0, std::memory_order_relaxed);
    left_.store(0, std::memory_order_relaxed);
    open(team - 1);
    work(0);
    const uint64_t joined = close();
    for (int spins = 0; left_.load(std::memory_order_acquire) != joined; ++spins)
      spins < kSpins ? pause() : std::this_thread::yield();
    return true;
  }

 private:
  // state_: epoch (upper 32 bits), free places (16 bits), joined (15 bits), open (1 bit)
  static constexpr uint64_t kOpen = 1, kJoined = 2, kPlace = 1 << 16, kEpoch = uint64_t{1} << 32;

  void open(int places) {
    const uint64_t epoch = (state_.load(std::memory_order_relaxed) / kEpoch + 1) * kEpoch;
    state_.store(epoch + uint64_t(places) * kPlace + kOpen, std::memory_order_seq_cst);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst) > 0) epoch_.notify_all();
  }
  uint64_t close() {
    const uint64_t s = state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    return s % kPlace / kJoined;
  }
  /// The worker's number in this job, or 0 if the job is closed or full.
  int join() {
    uint64_t s = state_.load(std::memory_order_acquire);
    while ((s & kOpen) && s % kEpoch / kPlace > 0)
      if (state_.compare_exchange_weak(s, s - kPlace + kJoined, std::memory_order_acq_rel))
        return static_cast<int>(s % kPlace / kJoined) + 1;
    return 0;
  }
  void work(int worker) {
    inside_job = true;
    for (int64_t c; (c = next_.fetch_add(1, std::memory_order_relaxed)) < chunks_;)
      body_(context_, c, worker);
    inside_job = false;
  }

  void loop(uint32_t seen) {
    for (;;) {
      seen = wait_for_job(seen);
      const int worker = join();
      if (!worker) continue;
      work(worker);
      left_.fetch_add(1, std::memory_order_release);
    }
  }
  uint32_t wait_for_job(uint32_t seen) {
    for (int spins = 0; spins < kSpins; ++spins, pause())
      if (const uint32_t e = epoch_.load(std::memory_order_acquire); e != seen) return e;
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    epoch_.wait(seen, std::memory_order_seq_cst);
    sleeping_.fetch_sub(1, std::memory_order_seq_cst);
    return epoch_.load(std::memory_order_acquire);
  }

  /// Starts workers until there are `n`; false if the system gives no more threads.
  bool grow(int n) {
    try {
      for (; workers_ < n; ++workers_) std::thread([this, e = epoch_.load()] { loop(e); }).detach();
    } catch (const std::system_error&) {
      return workers_ > 0;
    }
    return true;
  }

  std::mutex busy_;
  int workers_ = 0;
  void (*body_)(void*, int64_t, int) = nullptr;
  void* context_ = nullptr;
  int64_t chunks_ = 0;
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<int> sleeping_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) std::atomic<uint64_t> left_{0};
};

// Never destroyed: workers may still spin while the process exits.  A forked child has no workers,
// so it starts over with an empty pool.
std::atomic<Pool*> pool{nullptr};

Pool& the_pool() {
  static const bool once = [] {
    pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, [] { pool.store(new Pool); });
    return true;
  }();
  (void)once;
  return *pool.load(std::memory_order_acquire);
}

std::atomic<int>& threads() {
  static std::atomic<int> n{default_num_threads(kMaxThreads)};
  return n;
}

}  // namespace

int num_threads() { return threads().load(std::memory_order_relaxed); }

int team_limit() { return inside_job ? 1 : num_threads(); }

void set_num_threads(int64_t n) {
  if (n < 1 || n > kMaxThreads)
    throw std::invalid_argument("set_num_threads: n must be in 1.." + std::to_string(kMaxThreads) +
                                ", got " + std::to_string(n));
  threads().store(static_cast<int>(n), std::memory_order_relaxed);
}

int64_t work_per_thread() { return thread_work.load(std::memory_order_relaxed); }

int64_t threads_for(int64_t work) {
  const int64_t worth = work / work_per_thread();
  return std::clamp<int64_t>(worth, 1, team_limit());
}

void set_work_per_thread(int64_t n_bytes) {
  if (n_bytes < 1)
    throw std::invalid_argument("set_work_per_thread: n must be at least 1 byte, got " +
                                std::to_string(n_bytes));
  thread_work.store(n_bytes, std::memory_order_relaxed);
}

void run_chunks(int64_t chunks, int64_t work, void (*body)(void*, int64_t, int), void* context) {
  const int64_t team = std::min(chunks, threads_for(work));
  if (team > 1 && the_pool().run(chunks, static_cast<int>(team), body, context)) return;
  for (int64_t c = 0; c < chunks; ++c) body(context, c, 0);
}

}  // namespace fastdl
