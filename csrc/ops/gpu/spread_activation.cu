// spread_activation on the device: one block a query for all hops (spread.cuh).
#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/spread.cuh"
#include "csrc/ops/gpu/top_k.cuh"

namespace aesg::gpu {
namespace {

template <bool kSecond>
__global__ void spread_kernel(Spread job, Tables tables, uint8_t* again, int capacity, float* energies,
                              int64_t* slots) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  __shared__ int count[2];
  const SpreadBlock block{job.graph, job.rules, tables.of_block(blockIdx.x), count};
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
  bool is_clear = false;

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    if (kSecond && !again[b]) continue;
    if (!is_clear) block.table.clear();
    is_clear = true;
    const int64_t* seeds = job.seeds + b * job.seed_count;
    block.begin();
    for (int64_t s = threadIdx.x; s < job.seed_count; s += kThreads)
      block.start(seeds[s], job.energies[b * job.seed_count + s]);
    const bool done = block.run(block.region_of(job.seed_count > 0 ? seeds[0] : -1));
    if (!kSecond && threadIdx.x == 0) again[b] = !done;
    if (done) {
      block.choose(best);
      for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
        const bool found = i < *best.size;
        energies[b * job.k + i] = found ? best.score[i] : 0.0f;
        slots[b * job.k + i] = found ? best.slot[i] : -1;
      }
    }
    block.end();
  }
}

}  // namespace

size_t spread_activation_workspace(const Spread& job) {
  return Passes::plan(job.graph.first_block.rows, job.batch).bytes(job.batch);
}

int spread_activation(const Spread& job, void* workspace, float* energies, int64_t* slots, Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Passes passes = Passes::plan(job.graph.first_block.rows, job.batch);
  passes.place(workspace);
  const int capacity = buffer_size(job.k);
  const size_t shared = BlockTopK::bytes(capacity);
  spread_kernel<false><<<static_cast<unsigned>(passes.small.count), kThreads, shared, stream>>>(
      job, passes.small, passes.again, capacity, energies, slots);
  if (passes.large.count > 0)
    spread_kernel<true><<<static_cast<unsigned>(passes.large.count), kThreads, shared, stream>>>(
        job, passes.large, passes.again, capacity, energies, slots);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
