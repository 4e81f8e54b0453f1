#pragma once
// Our own thread pool: no OpenMP (bundling, fork dead-locks, clashes with other runtimes).
#include <cstdint>

namespace fastdl {

int num_threads();
/// Threads that a call made here may use: one inside a chunk that several threads share out.
int team_limit();
/// Throws std::invalid_argument unless 1 <= n <= kMaxThreads.
void set_num_threads(int64_t n);
constexpr int kMaxThreads = 256;

/// How many threads a call of this much work (see run_chunks) is worth; at least 1.
int64_t threads_for(int64_t work);
/// Work that makes a thread worth while; tests lower it to see threads on small arrays.
int64_t work_per_thread();
void set_work_per_thread(int64_t n_bytes);

/// Runs body(context, chunk, worker) for every chunk in [0, chunks), worker < num_threads().
/// `work` is the cost of the whole call in bytes moved or equivalent (4 flop ~ 1 byte): small work
/// stays on the caller's thread.  Which thread runs a chunk is not defined, so chunks must depend
/// on shapes alone and write apart; then results cannot depend on the number of threads.
void run_chunks(int64_t chunks, int64_t work, void (*body)(void*, int64_t, int), void* context);

}  // namespace fastdl
