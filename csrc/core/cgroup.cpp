#include "core/cgroup.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

namespace fastdl {
namespace {

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

/// The least that `read` finds in the folders from this process's cgroup v2 up to the root.
template <class T, class F>
T tightest(T most, F&& read) {
  for (std::string path = own_cgroup();;) {
    most = std::min(most, read("/sys/fs/cgroup" + path, most));
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return most;
    path.resize(slash);
  }
}

/// The number in the file, or `none` for "max" or no file.
int64_t bytes_in(const std::string& file, int64_t none) {
  std::ifstream in(file);
  int64_t bytes;
  return in >> bytes ? bytes : none;
}

}  // namespace

double cgroup_cpus(double none) {
  return tightest(
      std::min(none, quota_v1("/sys/fs/cgroup/cpu", none)),
      [](const std::string& folder, double most) { return quota_v2(folder + "/cpu.max", most); });
}

int64_t cgroup_memory(int64_t none) {
  return tightest(std::min(none, bytes_in("/sys/fs/cgroup/memory/memory.limit_in_bytes", none)),
                  [](const std::string& folder, int64_t most) {
                    return bytes_in(folder + "/memory.max", most);
                  });
}

}  // namespace fastdl
