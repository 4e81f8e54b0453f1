#include "core/cpu_count.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/cgroup.h"
#include "core/environment.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastdl {
namespace {

int affinity_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace

int default_num_threads(int limit) {
  if (const auto n = environment_integer("FASTDL_NUM_THREADS", 1, limit))
    return static_cast<int>(*n);
  const double cpus = std::ceil(cgroup_cpus(affinity_cpus()));
  return std::clamp(static_cast<int>(cpus), 1, limit);
}

}  // namespace fastdl
