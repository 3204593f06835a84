// spread_activation on the device: one block a query for all hops (spread.cuh), with derivatives on demand
// (spread_tangents.cuh).
#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/spread.cuh"
#include "csrc/ops/gpu/spread_tangents.cuh"
#include "csrc/ops/gpu/top_k.cuh"

namespace aesg::gpu {
namespace {

struct Results {
  float* energies;  // [B, k]
  int64_t* slots;   // [B, k]
  float* jacobian;  // [B, k, S]
};

template <bool kSecond, bool kTraced>
__global__ void spread_kernel(Spread job, Tables tables, uint8_t* again, int capacity, Results out) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  __shared__ int count[2];
  __shared__ double scales[kColumns];
  const SpreadBlock block{job.graph, job.rules, tables.of_block(blockIdx.x), count};
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
  bool is_clear = false;

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    if (kSecond && !again[b]) continue;
    if (!is_clear) block.table.clear();
    is_clear = true;
    const int64_t* seeds = job.seeds + b * job.seed_count;
    const float* starts = job.energies + b * job.seed_count;
    const int region = block.region_of(job.seed_count > 0 ? seeds[0] : -1);
    bool done = true;
    // With derivatives once for every kColumns seeds, else once.
    for (int64_t first = 0; done && (first == 0 || (kTraced && first < job.seed_count)); first += kColumns) {
      block.begin();
      for (int64_t s = threadIdx.x; s < job.seed_count; s += kThreads) block.start(seeds[s], starts[s]);
      if constexpr (kTraced) {
        const Tangents tangents = Tangents::at(block.table, scales);
        tangents.start(
            block, [=](int64_t s) { return seeds[s]; }, [=](int64_t s) { return starts[s]; }, first,
            job.seed_count);
        done = block.run(region, tangents);
      } else {
        done = block.run(region);
      }
      if (done) {
        block.choose(best);
        for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
          const bool found = i < *best.size;
          out.energies[b * job.k + i] = found ? best.score[i] : 0.0f;
          out.slots[b * job.k + i] = found ? best.slot[i] : -1;
          if constexpr (kTraced) {
            const Tangents tangents = Tangents::at(block.table, scales);
            float* row = out.jacobian + (b * job.k + i) * job.seed_count;
            for (int c = 0; c < kColumns && first + c < job.seed_count; ++c)
              row[first + c] = found ? tangents.slope(block, best.slot[i], c) : 0.0f;
          }
        }
        __syncthreads();
      }
      block.end();
    }
    if (!kSecond && threadIdx.x == 0) again[b] = !done;
  }
}

Passes plan(const Spread& job) {
  return Passes::plan(job.graph.first_block.rows, job.batch, job.jacobian ? Tangents::kBytesPerPlace : 0);
}

template <bool kTraced>
int launch(const Spread& job, const Passes& passes, const Results& out, cudaStream_t stream) {
  const int capacity = buffer_size(job.k);
  const size_t shared = BlockTopK::bytes(capacity);
  spread_kernel<false, kTraced><<<static_cast<unsigned>(passes.small.count), kThreads, shared, stream>>>(
      job, passes.small, passes.again, capacity, out);
  if (passes.large.count > 0)
    spread_kernel<true, kTraced><<<static_cast<unsigned>(passes.large.count), kThreads, shared, stream>>>(
        job, passes.large, passes.again, capacity, out);
  return cudaGetLastError();
}

}  // namespace

size_t spread_activation_workspace(const Spread& job) { return plan(job).bytes(job.batch); }

int spread_activation(const Spread& job, void* workspace, float* energies, int64_t* slots, float* jacobian,
                      Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Passes passes = plan(job);
  passes.place(workspace);
  const Results out{energies, slots, jacobian};
  return job.jacobian ? launch<true>(job, passes, out, stream) : launch<false>(job, passes, out, stream);
}

}  // namespace aesg::gpu
