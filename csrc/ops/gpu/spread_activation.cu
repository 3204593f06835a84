// spread_activation on the device: one block a query for all hops (spread.cuh).
#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/spread.cuh"
#include "csrc/ops/gpu/top_k.cuh"

namespace aesg::gpu {
namespace {

__global__ void spread_kernel(Spread job, Tables tables, int capacity, float* energies, int64_t* slots) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  __shared__ int count;
  const SpreadBlock block{job.graph, job.rules, tables.of_block(blockIdx.x), &count};
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    const int64_t* seeds = job.seeds + b * job.seed_count;
    block.begin();
    for (int64_t s = threadIdx.x; s < job.seed_count; s += kThreads)
      block.start(seeds[s], job.energies[b * job.seed_count + s]);
    block.run(block.region_of(job.seed_count > 0 ? seeds[0] : -1));
    block.choose(best);
    for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
      const bool found = i < *best.size;
      energies[b * job.k + i] = found ? best.score[i] : 0.0f;
      slots[b * job.k + i] = found ? best.slot[i] : -1;
    }
    block.end();
  }
}

}  // namespace

size_t spread_activation_workspace(const Spread& job) {
  return Tables::plan(job.graph.first_block.rows, job.batch).bytes();
}

int spread_activation(const Spread& job, void* workspace, float* energies, int64_t* slots, Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Tables tables = Tables::plan(job.graph.first_block.rows, job.batch);
  tables.place(workspace);
  if (const int error = tables.clear(stream)) return error;
  const int capacity = buffer_size(job.k);
  spread_kernel<<<static_cast<unsigned>(tables.count), kThreads, BlockTopK::bytes(capacity), stream>>>(
      job, tables, capacity, energies, slots);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
