// pack_rows on the device: blocks count their chosen rows, then give them places behind those of the blocks
// before them, then a warp a row copies.
#include <algorithm>

#include "csrc/ops/gpu/block_sum.cuh"
#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr int64_t kPart = 16 * kBlock;  // rows of a block

int64_t parts_of(const PackRows& job) { return (job.count + kPart - 1) / kPart; }

__global__ void count_chosen(PackRows job, int64_t* counts) {
  __shared__ int shared[kBlock];
  const int64_t begin = int64_t{blockIdx.x} * kPart;
  const int64_t end = begin + kPart < job.count ? begin + kPart : job.count;
  int mine = 0, all = 0;
  for (int64_t row = begin + threadIdx.x; row < end; row += kBlock) mine += job.chosen[row] != 0;
  sum_before<kBlock>(mine, shared, &all);
  if (threadIdx.x == 0) counts[blockIdx.x] = all;
}

__global__ void give_places(PackRows job, const int64_t* counts) {
  __shared__ int64_t before[kBlock];
  __shared__ int shared[kBlock];
  int64_t limit = job.most == nullptr ? job.count : *job.most;
  limit = limit < 0 ? 0 : limit;
  int64_t mine = 0, first = 0;  // the place of this block's first
  for (int64_t part = threadIdx.x; part < blockIdx.x; part += kBlock) mine += counts[part];
  sum_before<kBlock>(mine, before, &first);
  const int64_t begin = int64_t{blockIdx.x} * kPart;
  const int64_t end = begin + kPart < job.count ? begin + kPart : job.count;
  for (int64_t base = begin; base < end; base += kBlock) {
    const int64_t row = base + threadIdx.x;
    const bool wanted = row < end && job.chosen[row] != 0;
    int all = 0;
    const int64_t place = first + sum_before<kBlock>(wanted ? 1 : 0, shared, &all);
    if (row < end) job.places[row] = wanted && place < limit ? place : -1;
    first += all;
  }
  if (end == job.count && threadIdx.x == 0) *job.packed_count = first < limit ? first : limit;
}

__global__ void copy_rows(PackRows job) {
  const int lane = threadIdx.x % kWarp;
  const int64_t step = int64_t{gridDim.x} * (kBlock / kWarp);
  for (int64_t row = int64_t{blockIdx.x} * (kBlock / kWarp) + threadIdx.x / kWarp; row < job.count;
       row += step) {
    const int64_t place = job.places[row];
    if (place < 0) continue;
    for (int64_t d = lane; d < job.width; d += kWarp)
      job.packed[place * job.width + d] = job.rows[row * job.width + d];
  }
}

}  // namespace

size_t pack_rows_workspace(const PackRows& job) { return sizeof(int64_t) * parts_of(job); }

int pack_rows(const PackRows& job, void* workspace, Stream opaque) {
  const auto stream = static_cast<cudaStream_t>(opaque);
  if (job.count == 0) return cudaMemsetAsync(job.packed_count, 0, sizeof(int64_t), stream);
  if (job.width > 0) {  // a graph that is captured takes no fill of nothing
    const int error = cudaMemsetAsync(job.packed, 0, sizeof(float) * job.count * job.width, stream);
    if (error != 0) return error;
  }
  auto* counts = static_cast<int64_t*>(workspace);
  const auto parts = static_cast<unsigned>(parts_of(job));
  const int64_t warps = (job.count + kBlock / kWarp - 1) / (kBlock / kWarp);
  count_chosen<<<parts, kBlock, 0, stream>>>(job, counts);
  give_places<<<parts, kBlock, 0, stream>>>(job, counts);
  copy_rows<<<static_cast<unsigned>(std::min(warps, kMostBlocks)), kBlock, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
