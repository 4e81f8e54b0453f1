#pragma once

namespace fastdl {

/// FASTDL_NUM_THREADS if set (std::invalid_argument unless an integer in 1..limit), else the CPUs
/// that this process may use: the affinity mask, capped by the cgroup's CPU quota.
int default_num_threads(int limit);

}  // namespace fastdl
