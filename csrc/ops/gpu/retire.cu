// retire_ on the device. The list of free blocks grows chain by chain in the order of the slots, so all that
// the chains must know of each other is where the one before ends: a prefix over tiles of slots, one a block.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 256;  // slots a tile

struct Workspace {
  int32_t* tails;   // [N] where the chain of one who dies ends, -1: it has none. Others' are not written.
  int32_t* before;  // [tiles] the last such end in a tile, then in all tiles before; -1: none
  int64_t* died;    // [tiles]
  int64_t* edges;   // [tiles] released
};

int64_t tiles_of(const Retire& job) { return (job.edges.slots() + kBlock - 1) / kBlock; }

// Lays the parts out from `memory` on; returns how many bytes they take.
size_t lay_out(const Retire& job, char* memory, Workspace* work) {
  size_t used = 0;
  const auto take = [&](auto** part, int64_t count) {
    *part = reinterpret_cast<std::remove_reference_t<decltype(*part)>>(memory + used);
    used += (count * sizeof(**part) + 255) / 256 * 256;
  };
  take(&work->tails, job.edges.slots());
  take(&work->before, tiles_of(job));
  take(&work->died, tiles_of(job));
  take(&work->edges, tiles_of(job));
  return used;
}

// The last of all threads' values that is no -1, up to and with each thread. Ends with a barrier.
__device__ int32_t last_until(int32_t mine, int32_t* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int width = 1; width < kBlock; width *= 2) {
    const int32_t earlier = static_cast<int>(threadIdx.x) >= width ? shared[threadIdx.x - width] : -1;
    __syncthreads();
    if (mine < 0) mine = earlier;
    shared[threadIdx.x] = mine;
    __syncthreads();
  }
  return mine;
}

// The sum over all threads; every thread gets it. Ends with a barrier.
__device__ int64_t sum_of_block(int64_t mine, int64_t* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int width = kBlock / 2; width > 0; width /= 2) {
    if (static_cast<int>(threadIdx.x) < width) shared[threadIdx.x] += shared[threadIdx.x + width];
    __syncthreads();
  }
  const int64_t sum = shared[0];
  __syncthreads();
  return sum;
}

// A thread a slot: walks the chains of those who die. A tile in which nobody does costs its reading.
__global__ void measure(Retire job, Workspace work) {
  __shared__ int32_t tails[kBlock];
  __shared__ int64_t sums[kBlock];
  const int64_t slot = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const bool dies = slot < job.edges.slots() && job.dies(slot);
  int32_t last = -1;
  int64_t died = 0, edges = 0;
  if (__syncthreads_or(dies)) {
    Chain chain;
    if (dies) {
      chain = chain_of(job.edges, slot);
      work.tails[slot] = chain.tail;
    }
    last = last_until(chain.tail, tails);
    died = sum_of_block(dies, sums);
    edges = sum_of_block(chain.edges, sums);
  }
  if (threadIdx.x == kBlock - 1) {
    work.before[blockIdx.x] = last;
    work.died[blockIdx.x] = died;
    work.edges[blockIdx.x] = edges;
  }
}

// One block: the prefix over the tiles, and the counters. The list of free blocks is behind the first chain.
__global__ void connect(Retire job, Workspace work, int64_t tiles, int64_t* out) {
  __shared__ int32_t tails[kBlock];
  __shared__ int64_t sums[kBlock];
  const int64_t each = (tiles + kBlock - 1) / kBlock;
  const int64_t begin = threadIdx.x * each, end = begin + each < tiles ? begin + each : tiles;
  int32_t last = -1;
  int64_t died = 0, edges = 0;
  for (int64_t tile = begin; tile < end; ++tile) {
    if (work.before[tile] >= 0) last = work.before[tile];
    died += work.died[tile];
    edges += work.edges[tile];
  }
  last = last_until(last, tails);
  died = sum_of_block(died, sums);
  edges = sum_of_block(edges, sums);

  const auto free = static_cast<int32_t>(job.counters[kFreeBlock]);
  int32_t before = threadIdx.x > 0 ? tails[threadIdx.x - 1] : -1;
  if (before < 0) before = free;
  for (int64_t tile = begin; tile < end; ++tile) {
    const int32_t own = work.before[tile];
    work.before[tile] = before;
    if (own >= 0) before = own;
  }
  __syncthreads();  // all have read the head of the list
  if (threadIdx.x == kBlock - 1) {
    if (last >= 0) job.counters[kFreeBlock] = last;
    job.counters[kActiveCount] -= died;
    job.counters[kEdgeCount] -= edges;
    *out = died;
  }
}

// A thread a slot: those who die give their chains back.
__global__ void release(Retire job, Workspace work) {
  __shared__ int32_t tails[kBlock];
  if (work.died[blockIdx.x] == 0) return;
  const int64_t slot = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const bool dies = slot < job.edges.slots() && job.dies(slot);
  const int32_t tail = dies ? work.tails[slot] : -1;
  last_until(tail, tails);
  if (!dies) return;
  job.active[slot] = 0;
  if (tail < 0) return;
  const int32_t before = threadIdx.x > 0 ? tails[threadIdx.x - 1] : -1;
  release_chain(job.edges, slot, before >= 0 ? before : work.before[blockIdx.x]);
}

}  // namespace

size_t retire_workspace(const Retire& job) {
  Workspace work;
  return lay_out(job, nullptr, &work);
}

int retire(const Retire& job, void* workspace, int64_t* died, Stream opaque) {
  const auto stream = static_cast<cudaStream_t>(opaque);
  if (job.edges.slots() == 0) return cudaMemsetAsync(died, 0, sizeof(int64_t), stream);
  Workspace work;
  lay_out(job, static_cast<char*>(workspace), &work);
  const int64_t tiles = tiles_of(job);
  measure<<<static_cast<unsigned>(tiles), kBlock, 0, stream>>>(job, work);
  connect<<<1, kBlock, 0, stream>>>(job, work, tiles, died);
  release<<<static_cast<unsigned>(tiles), kBlock, 0, stream>>>(job, work);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
