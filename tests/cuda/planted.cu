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

/// What comes out tells the order of the blocks.
__global__ void order_of_blocks(const float*, float* y) {
  if (threadIdx.x == 0) *y = *y * 2 + float(blockIdx.x);
}

struct Planted {
  const char* name;
  void (*kernel)(const float*, float*);
  int blocks, threads;
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
};

void run(const Planted& p) {
  float x[kThreads], y = 0;
  for (int i = 0; i < kThreads; ++i) x[i] = float(i + 1);
  try {
    launch(p.kernel, p.blocks, p.threads, static_cast<const float*>(x), &y);
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
