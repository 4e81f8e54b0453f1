#include "core/cpu_count.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

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

/// CPUs granted by "quota period" in the file (cgroup v2's cpu.max), or `none` for "max" or no
/// file.
double quota_v2(const std::string& file, double none) {
  std::ifstream in(file);
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return none;
  return std::atof(quota.c_str()) / period;
}

double quota_v1(const std::string& folder, double none) {
  std::ifstream quota_in(folder + "/cpu.cfs_quota_us"), period_in(folder + "/cpu.cfs_period_us");
  double quota = -1, period = 0;
  if (!(quota_in >> quota) || !(period_in >> period) || quota <= 0 || period <= 0) return none;
  return quota / period;
}

/// This process's cgroup v2 folder, such as "/user.slice/app"; "" if there is none.
std::string own_cgroup() {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  return "";
}

/// The tightest CPU quota between this process's cgroup and the root.
double cgroup_cpus(double none) {
  double cpus = std::min(none, quota_v1("/sys/fs/cgroup/cpu", none));
  for (std::string path = own_cgroup();;) {
    cpus = std::min(cpus, quota_v2("/sys/fs/cgroup" + path + "/cpu.max", none));
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return cpus;
    path.resize(slash);
  }
}

}  // namespace

int default_num_threads(int limit) {
  if (const auto n = environment_integer("FASTDL_NUM_THREADS", 1, limit))
    return static_cast<int>(*n);
  const double cpus = std::ceil(cgroup_cpus(affinity_cpus()));
  return std::clamp(static_cast<int>(cpus), 1, limit);
}

}  // namespace fastdl
