// Kernels that break one rule each, for tests/test_emulator.py: what the emulator must notice.
// planted NAME runs one and prints the sum of 1 .. 64 as it came out, or the emulator's complaint.
#define FASTDL_ISA cuemu
#include <cstdio>

#include "cuda/reduce.cuh"

namespace fastdl::cuemu {
namespace {

constexpr int kThreads = 64;

/// A sum by a tree in shared memory, with its barriers or without.
template <bool kBarriers>
__global__ void tree(const float* x, float* y) {
  FASTDL_SHARED(float, shared, kThreads);
  const int i = int(threadIdx.x);
  shared[i] = x[i];
  for (int width = kThreads / 2; width; width /= 2) {
    if (kBarriers) __syncthreads();
    if (i < width) shared[i] += shared[i + width];
  }
  if (i == 0) *y = shared[0];
}

__global__ void shuffles(const float* x, float* y) {
  FASTDL_SHARED(float, shared, kWarpSize);
  const float sum = join_block(x[threadIdx.x], shared, Add{});
  if (threadIdx.x == 0) *y = sum;
}

__global__ void divergent_barrier(const float*, float*) {
  if (threadIdx.x < 24) __syncthreads();
}

__global__ void different_barriers(const float*, float*) {
  if (threadIdx.x % 2)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void divergent_shuffle(const float* x, float* y) {
  if (threadIdx.x % 2) *y = join_warp(x[threadIdx.x], Add{});
}

__global__ void absent_lane(const float* x, float* y) {
  if (threadIdx.x < 2) *y = __shfl_sync(3u, x[threadIdx.x], 5);
}

__global__ void foreign_mask(const float* x, float* y) { *y = __shfl_sync(1u, *x, 0); }

__global__ void write_behind(const float*, float*) {
  FASTDL_SHARED(float, first, 8);
  FASTDL_SHARED(float, second, 8);
  if (threadIdx.x == 0) first[8] = 1, second[0] = 1;
}

__global__ void write_before(const float*, float*) {
  FASTDL_SHARED(float, first, 8);
  if (threadIdx.x == 0) first[-1] = 1;
}

__global__ void uninitialised(const float*, float* y) {
  FASTDL_SHARED(float, shared, 8);
  *y = shared[3];
}

__global__ void too_much(const float*, float* y) {
  FASTDL_SHARED(float, shared, 60 * 1024);
  *y = shared[3];
}

/// A sum in a loop of copies, the next one on its way, with its waits or without.
template <bool kWaits>
__global__ void copies(const float* x, float* y) {
  FASTDL_SHARED(float, shared, kThreads);
  const int lane = int(threadIdx.x);
  float sum = 0;
  __pipeline_memcpy_async(shared + lane, x + lane, 4);
  __pipeline_commit();
  for (int i = 0; i < kThreads / kWarpSize; ++i) {
    const int next = (i + 1) * kWarpSize + lane;
    if (next < kThreads) __pipeline_memcpy_async(shared + next, x + next, 4);
    __pipeline_commit();
    if (kWaits) __pipeline_wait_prior(1);
    __syncwarp();
    sum += shared[i * kWarpSize + kWarpSize - 1 - lane];
    __syncwarp();
  }
  __pipeline_wait_prior(0);
  sum = join_warp(sum, Add{});
  if (lane == 0) *y = sum;
}

__global__ void copy_left_alone(const float* x, float*) {
  FASTDL_SHARED(float, shared, 4);
  __pipeline_memcpy_async(shared, x, 16);
  __pipeline_commit();
}

__global__ void misaligned_copy(const float* x, float*) {
  FASTDL_SHARED(float, shared, 8);
  __pipeline_memcpy_async(shared + 1, x, 16);
}

/// The blocks of a cluster write their sums into one another's shared memory.
template <bool kSyncBefore, bool kSyncBetween>
__global__ void cluster_sum(const float* x, float* y) {
  FASTDL_SHARED(float, shared, kWarpSize);
  FASTDL_SHARED(float, sums, 4);
  const int i = cluster_rank() * kWarpSize / 2 + int(threadIdx.x) % 16, to = int(threadIdx.x);
  const float sum = join_block(threadIdx.x < 16 ? x[i] : 0, shared, Add{});
  if (kSyncBefore) cluster_sync();
  if (to < 4) of_rank(sums, to)[cluster_rank()] = sum;
  if (kSyncBetween)
    cluster_sync();
  else
    __syncthreads();
  if (blockIdx.x == 2 && to == 0) *y = sums[0] + sums[1] + sums[2] + sums[3];
}

/// Reads from the others, with a barrier behind it or not: they may have ended.
template <bool kSyncAfter>
__global__ void cluster_read(const float* x, float* y) {
  FASTDL_SHARED(float, own, 1);
  if (threadIdx.x == 0) *own = x[threadIdx.x] * 520;
  cluster_sync();
  if (cluster_rank() == 0 && threadIdx.x == 0)
    *y = *own + *of_rank(own, 1) + *of_rank(own, 2) + *of_rank(own, 3);
  if (kSyncAfter) cluster_sync();
}

/// A copy to shared memory that another block of the cluster reads, waited for or not.
template <bool kWaits>
__global__ void cluster_copy(const float* x, float* y) {
  FASTDL_SHARED(float, shared, kThreads);
  const int i = int(threadIdx.x);
  __pipeline_memcpy_async(shared + i, x + i, 4);
  __pipeline_commit();
  if (kWaits) __pipeline_wait_prior(0);
  cluster_sync();
  const float* other = of_rank(shared, 1 - cluster_rank());
  const float sum = join_warp(other[i], Add{}) + join_warp(other[i ^ kWarpSize], Add{});
  if (blockIdx.x == 0 && i == 0) *y = sum;
  cluster_sync();
  __pipeline_wait_prior(0);
}

/// Writes beside the array of another block.
__global__ void cluster_write_behind(const float*, float*) {
  FASTDL_SHARED(float, first, 8);
  cluster_sync();
  if (cluster_rank() == 0 && threadIdx.x == 0) of_rank(first, 3)[8] = 1;
  cluster_sync();
}

__global__ void absent_rank(const float*, float* y) {
  FASTDL_SHARED(float, own, 1);
  *y = *of_rank(own, 4);
}

__global__ void cluster_barrier_of_some(const float*, float*) {
  if (cluster_rank() != 1) cluster_sync();
}

__global__ void dynamic(const float* x, float* y) {
  FASTDL_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x) return;
  *y = 0;
  for (int i = 0; i < kThreads; ++i) *y += shared[i];
}

/// Writes what others may still read; since it is the same again, the values stay right.
template <bool kBarrier>
__global__ void write_after_read(const float* x, float* y) {
  FASTDL_SHARED(float, shared, kThreads);
  const int i = int(threadIdx.x);
  shared[i] = x[i];
  __syncthreads();
  float sum = 0;
  for (int k = 0; k < kThreads; ++k) sum += shared[k];
  if (kBarrier) __syncthreads();
  shared[i] = x[i];
  if (i == 0) *y = sum;
}

/// What comes out tells the order of the blocks.
__global__ void order_of_blocks(const float*, float* y) {
  if (threadIdx.x == 0) *y = *y * 2 + float(blockIdx.x);
}

struct Planted {
  const char* name;
  void (*kernel)(const float*, float*);
  int blocks, threads, cluster = 1, dynamic_bytes = 0;
};
const Planted kPlanted[] = {
    {"tree", &tree<true>, 1, kThreads},
    {"missing_barrier", &tree<false>, 1, kThreads},
    {"shuffles", &shuffles, 1, kThreads},
    {"divergent_barrier", &divergent_barrier, 1, kThreads},
    {"different_barriers", &different_barriers, 1, kThreads},
    {"divergent_shuffle", &divergent_shuffle, 1, kThreads},
    {"absent_lane", &absent_lane, 1, kThreads},
    {"foreign_mask", &foreign_mask, 1, kThreads},
    {"write_behind", &write_behind, 1, kThreads},
    {"write_before", &write_before, 1, kThreads},
    {"uninitialised", &uninitialised, 1, 1},
    {"too_much", &too_much, 1, 1},
    {"order_of_blocks", &order_of_blocks, 8, kThreads},
    {"too_many_threads", &tree<true>, 1, 1025},
    {"copies", &copies<true>, 1, kWarpSize},
    {"missing_wait", &copies<false>, 1, kWarpSize},
    {"copy_left_alone", &copy_left_alone, 1, 1},
    {"misaligned_copy", &misaligned_copy, 1, 1},
    {"cluster_sum", &cluster_sum<true, true>, 4, kThreads, 4},
    {"write_before_start", &cluster_sum<false, true>, 4, kThreads, 4},
    {"read_before_write", &cluster_sum<true, false>, 4, kThreads, 4},
    {"cluster_read", &cluster_read<true>, 4, kThreads, 4},
    {"read_after_end", &cluster_read<false>, 4, kThreads, 4},
    {"cluster_copy", &cluster_copy<true>, 2, kThreads, 2},
    {"cluster_missing_wait", &cluster_copy<false>, 2, kThreads, 2},
    {"cluster_write_behind", &cluster_write_behind, 4, kThreads, 4},
    {"absent_rank", &absent_rank, 4, 1, 4},
    {"cluster_barrier_of_some", &cluster_barrier_of_some, 4, kThreads, 4},
    {"divided_cluster", &cluster_read<true>, 6, kThreads, 4},
    {"dynamic", &dynamic, 1, kThreads, 1, kThreads * int(sizeof(float))},
    {"dynamic_too_small", &dynamic, 1, kThreads, 1, 60 * int(sizeof(float))},
    {"sound_write_after_read", &write_after_read<true>, 1, kThreads},
    {"write_after_read", &write_after_read<false>, 1, kThreads},
};

void run(const Planted& p) {
  float x[kThreads], y = 0;
  for (int i = 0; i < kThreads; ++i) x[i] = float(i + 1);
  try {
    launch(p.kernel, Grid(p.blocks, p.threads, p.cluster, p.dynamic_bytes),
           static_cast<const float*>(x), &y);
    std::printf("%s %g\n", p.name, double(y));
  } catch (const EmulatorError& e) {
    std::printf("%s error %s\n", p.name, e.what());
  }
}

}  // namespace
}  // namespace fastdl::cuemu

/// All kernels that are named, in this process: a failed launch must not spoil the next one.
int main(int count, char** names) {
  for (int i = 1; i < count; ++i)
    for (const auto& p : fastdl::cuemu::kPlanted)
      if (std::strcmp(p.name, names[i]) == 0) fastdl::cuemu::run(p);
}
