#pragma once
// What containers and services are limited to, where the system has cgroups.
#include <cstdint>

namespace fastdl {

/// The tightest CPU quota between this process's cgroup and the root, or `none`.
double cgroup_cpus(double none);
/// The tightest limit of memory there, in bytes, or `none`.
int64_t cgroup_memory(int64_t none);

}  // namespace fastdl
