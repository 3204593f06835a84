// coactivate_ on the device: a thread a pair, then, once they are sorted, a thread a run of equal ones. Runs
// of one source lie side by side: the threads of a warp walk its chain together.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 256;

__global__ void coactivation_pairs_kernel(Primaries primaries, int64_t count, int64_t* pairs) {
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t n = int64_t{blockIdx.x} * kBlock + threadIdx.x; n < count; n += step)
    pairs[n] = pair_at(primaries, n);
}

__global__ void coactivate_kernel(Coactivate job) {
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t first = int64_t{blockIdx.x} * kBlock + threadIdx.x; first < job.count; first += step)
    take_run(job, first);
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(std::min<int64_t>((threads + kBlock - 1) / kBlock, kMostBlocks));
}

}  // namespace

int coactivation_pairs(const Primaries& primaries, int64_t* pairs, Stream stream) {
  const int64_t count = pair_count(primaries);
  if (count == 0) return 0;
  coactivation_pairs_kernel<<<blocks_for(count), kBlock, 0, static_cast<cudaStream_t>(stream)>>>(
      primaries, count, pairs);
  return cudaGetLastError();
}

int coactivate(const Coactivate& job, Stream stream) {
  if (job.count == 0 || job.edges.slots() == 0) return 0;
  coactivate_kernel<<<blocks_for(job.count), kBlock, 0, static_cast<cudaStream_t>(stream)>>>(job);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
