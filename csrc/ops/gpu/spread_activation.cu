// spread_activation on the device: one block a query for all hops, a hash of touched concepts in global
// memory. Sums are integers, so the atomic order does not matter and the bits are those of the CPU.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/top_k.cuh"
#include "csrc/ops/spread_activation_math.h"

namespace aesg::gpu {
namespace {

constexpr int kEdges = 7;  // a block of edges
constexpr int kWarp = 32;
constexpr int64_t kMostBlocks = 512;  // queries at work at once
constexpr int64_t kTableBytes = int64_t{1}
                                << 30;         // of all tables together, before the number of blocks falls
constexpr uint32_t kHashFactor = 0x9e3779b1u;  // 2^32 / golden ratio

// The hash of one block: capacity a power of two, at least twice the concepts, so it cannot fill up.
struct Table {
  unsigned long long* sum;  // n_j in fixed point
  int* slot;                // -1: free
  float* energy;
  int* touched;  // places in use
  int bits;

  __device__ int find_or_add(int wanted, int* count) const {
    const unsigned mask = (1u << bits) - 1;
    unsigned place = static_cast<unsigned>(wanted) * kHashFactor >> (32 - bits);
    while (true) {
      const int before = atomicCAS(&slot[place], -1, wanted);
      if (before == -1) touched[atomicAdd(count, 1)] = static_cast<int>(place);
      if (before == -1 || before == wanted) return static_cast<int>(place);
      place = (place + 1) & mask;
    }
  }
};

struct Plan {
  int bits;
  int64_t blocks;
};

size_t table_bytes(int bits) { return (sizeof(int64_t) + 3 * sizeof(int32_t)) << bits; }

Plan plan(const Spread& job) {
  Plan made{10, 0};
  while (int64_t{1} << made.bits < 2 * job.first_block.rows) ++made.bits;
  made.blocks =
      std::clamp<int64_t>(kTableBytes / table_bytes(made.bits), 1, std::min(kMostBlocks, job.batch));
  return made;
}

// All tables in one array of each kind, for one memset a kind.
Table table_of(const Plan& made, void* memory, int64_t block) {
  const int64_t places = int64_t{1} << made.bits, all = made.blocks * places;
  auto* sum = static_cast<unsigned long long*>(memory);
  auto* slot = reinterpret_cast<int*>(sum + all);
  auto* energy = reinterpret_cast<float*>(slot + all);
  auto* touched = reinterpret_cast<int*>(energy + all);
  return {sum + block * places, slot + block * places, energy + block * places, touched + block * places,
          made.bits};
}

__device__ Table shifted(Table first, int64_t block) {
  const int64_t places = (int64_t{1} << first.bits) * block;
  return {first.sum + places, first.slot + places, first.energy + places, first.touched + places, first.bits};
}

// Of parallel edges the strongest counts, of equals the first in the chain.
__device__ bool strongest(const Spread& job, int head, int block, int place, int target, float strength) {
  bool behind = false;  // past the edge asked about
  for (int b = head; b >= 0 && b < job.next_block.rows; b = job.next_block[b]) {
    for (int i = 0; i < kEdges; ++i) {
      if (b == block && i == place) {
        behind = true;
        continue;
      }
      if (job.targets.at(b)[i] != target) continue;
      const float other = job.strengths.at(b)[i];
      if (other > strength || (other == strength && !behind)) return false;
    }
  }
  return true;
}

__global__ void spread_kernel(Spread job, Table tables, int capacity, float* energies, int64_t* slots) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  __shared__ int count;
  const Table table = shifted(tables, blockIdx.x);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = kThreads / kWarp;
  const int slots_in_use = static_cast<int>(job.first_block.rows);

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    const int64_t* seeds = job.seeds + b * job.seed_count;
    const float* start = job.energies + b * job.seed_count;
    for (int64_t s = threadIdx.x; s < job.seed_count; s += kThreads) {
      const int64_t seed = seeds[s];
      if (seed < 0 || seed >= slots_in_use || !(start[s] > 0.0f) || !job.active[seed]) continue;
      const int place = table.find_or_add(static_cast<int>(seed), &count);
      // Positive floats order like their bits.
      atomicMax(reinterpret_cast<int*>(&table.energy[place]), __float_as_int(start[s]));
    }
    const bool has_region = job.regions && job.seed_count > 0 && seeds[0] >= 0 && seeds[0] < slots_in_use;
    const int region = has_region ? job.regions[seeds[0]] : 0;
    __syncthreads();

    for (int64_t hop = 0; hop < job.hops; ++hop) {
      const int known = count;
      __syncthreads();
      for (int i = warp; i < known; i += warps) {  // a warp a source, a lane an edge of the block
        const int source = table.touched[i];
        const float energy = table.energy[source];
        if (energy < job.source_floor) continue;
        const int head = job.first_block[table.slot[source]];
        for (int block = head; block >= 0 && block < job.next_block.rows; block = job.next_block[block]) {
          if (lane >= kEdges) continue;
          const int target = job.targets.at(block)[lane];
          if (target < 0 || target >= slots_in_use || !job.active[target]) continue;
          const float strength = job.strengths.at(block)[lane];
          const float factor = region != 0 && job.regions[target] == region ? job.facilitation : 1.0f;
          const int32_t gives =
              fixed_transfer(transfer(energy, strength, job.decay, factor), job.transfer_floor);
          if (gives == 0 || !strongest(job, head, block, lane, target, strength)) continue;
          const int place = table.find_or_add(target, &count);
          atomicAdd(&table.sum[place], static_cast<unsigned long long>(gives));
        }
      }
      __syncthreads();
      for (int i = threadIdx.x; i < count; i += kThreads) {
        const int place = table.touched[i];
        table.energy[place] =
            fmaxf(table.energy[place], fixed_energy(static_cast<int64_t>(table.sum[place])));
        table.sum[place] = 0;
      }
      __syncthreads();
    }

    BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
    best.reset();
    for (int base = 0; base < count; base += kThreads) {
      const int i = base + threadIdx.x;
      const int place = i < count ? table.touched[i] : 0;
      const float energy = i < count ? table.energy[place] : 0.0f;
      best.offer(energy > 0.0f, energy, i < count ? table.slot[place] : -1);
    }
    best.cut();
    for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
      const bool found = i < *best.size;
      energies[b * job.k + i] = found ? best.score[i] : 0.0f;
      slots[b * job.k + i] = found ? best.slot[i] : -1;
    }
    for (int i = threadIdx.x; i < count; i += kThreads) {  // leave the table as it was found
      table.slot[table.touched[i]] = -1;
      table.energy[table.touched[i]] = 0.0f;
    }
    __syncthreads();
  }
}

}  // namespace

size_t spread_activation_workspace(const Spread& job) {
  const Plan made = plan(job);
  return made.blocks * table_bytes(made.bits);
}

int spread_activation(const Spread& job, void* workspace, float* energies, int64_t* slots, Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  const Plan made = plan(job);
  const Table first = table_of(made, workspace, 0);
  const size_t all = static_cast<size_t>(made.blocks) << made.bits;
  int error = cudaMemsetAsync(first.sum, 0, all * sizeof(*first.sum), stream);
  if (error == 0) error = cudaMemsetAsync(first.slot, 0xff, all * sizeof(*first.slot), stream);
  if (error == 0) error = cudaMemsetAsync(first.energy, 0, all * sizeof(*first.energy), stream);
  if (error != 0) return error;
  const int capacity = buffer_size(job.k);
  spread_kernel<<<static_cast<unsigned>(made.blocks), kThreads, BlockTopK::bytes(capacity), stream>>>(
      job, first, capacity, energies, slots);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
