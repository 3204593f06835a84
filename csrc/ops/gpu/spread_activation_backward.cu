// The gradient of edge strengths on the device. Each block spreads a query again and keeps its energies hop
// by hop, then walks back: a source gathers from its own edges in the order of its chain, so nothing in a
// query depends on the order of threads. Many queries add to one edge, and their order is open: they add
// integers, in a unit that a first run over all queries finds from the largest of what is to be added. So the
// same input has the same bits.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/spread.cuh"

namespace aesg::gpu {
namespace {

constexpr int64_t kMostFinishing = std::min<int64_t>(kMostBlocks, 1 << 12);

// Energies of all concepts touched, hop by hop; a row each, in the order of Table::touched.
struct History {
  float* energies;   // [hops + 1, rows]
  float* gradients;  // [rows] d loss / d energy after the hop looked at
  float* arriving;   // [rows] d loss / d n of that hop
  int* row_of;       // [places]
  int64_t rows;

  static int64_t bytes_per_place(int64_t hops) { return sizeof(float) * (hops + 3) / 2 + sizeof(int); }

  __device__ static History at(const Table& table, int64_t hops) {
    const int64_t rows = int64_t{1} << (table.bits - 1);
    auto* energies = reinterpret_cast<float*>(table.more);
    float* gradients = energies + (hops + 1) * rows;
    return {energies, gradients, gradients + rows, reinterpret_cast<int*>(gradients + 2 * rows), rows};
  }

  // By all threads, when all have started; ends with a barrier.
  __device__ void start(const SpreadBlock& block) const {
    __syncthreads();
    if (block.count[1]) return;
    add_rows(block, 0, 0);
    for (int i = threadIdx.x; i < *block.count; i += kThreads)
      energies[i] = block.table.energy[block.table.touched[i]];
    __syncthreads();
  }

  __device__ void operator()(const SpreadBlock& block, int, int64_t hop, int known) const {
    if (block.count[1]) return;
    add_rows(block, known, hop);
    const Table& table = block.table;
    for (int i = threadIdx.x; i < *block.count; i += kThreads) {
      const int place = table.touched[i];
      energies[(hop + 1) * rows + i] =
          fmaxf(table.energy[place], fixed_energy(static_cast<int64_t>(table.sum[place])));
    }
  }

 private:
  __device__ void add_rows(const SpreadBlock& block, int known, int64_t hop) const {
    for (int i = known + threadIdx.x; i < *block.count; i += kThreads) {
      row_of[block.table.touched[i]] = i;
      gradients[i] = arriving[i] = 0.0f;
      for (int64_t before = 0; before <= hop; ++before) energies[before * rows + i] = 0.0f;
    }
  }
};

// Where gradients of edges are added up.
struct Sums {
  unsigned long long* fixed;  // [M, 7]
  int* largest;               // bits of the largest finite part
  float* sums;                // [M, 7], NaN where a part is not finite
  int64_t edges;
  int spare_bits;  // so many parts may come that they take these

  // 0: there is nothing to add.
  __device__ double scale() const {
    const float most = __int_as_float(*largest);
    return most > 0.0f ? ldexp(1.0, 61 - spare_bits - ilogbf(most)) : 0.0;
  }
};

// What one thread adds, or, at first, the largest of it.
template <bool kAdd>
struct Adder {
  const Sums& to;
  double scale = 0.0;
  float most = 0.0f;

  __device__ void add(int block, int lane, float part) {
    const int64_t edge = int64_t{block} * kEdges + lane;
    if constexpr (!kAdd) {
      if (isfinite(part)) most = fmaxf(most, fabsf(part));
    } else if (!isfinite(part)) {
      to.sums[edge] = __int_as_float(0x7fc00000);
    } else {
      atomicAdd(&to.fixed[edge],
                static_cast<unsigned long long>(__double2ll_rn(static_cast<double>(part) * scale)));
    }
  }
};

// The gradients of the results, at their concepts. Slots that come twice are added in order.
__device__ void begin_back(const SpreadBlock& block, const History& history, const float* gradients,
                           const int64_t* slots, int64_t k) {
  for (int64_t i = threadIdx.x; i < k; i += kThreads) {
    const int place = block.inside(slots[i]) ? block.table.find(static_cast<int>(slots[i])) : -1;
    if (place < 0) continue;
    bool is_first = true;
    for (int64_t j = 0; j < i; ++j) is_first &= slots[j] != slots[i];
    if (!is_first) continue;
    float sum = 0.0f;
    for (int64_t j = i; j < k; ++j)
      if (slots[j] == slots[i]) sum = __fadd_rn(sum, gradients[j]);
    history.gradients[history.row_of[place]] = sum;
  }
  __syncthreads();
}

// One hop back, by all threads; ends with a barrier.
template <bool kAdd>
__device__ void hop_back(const SpreadBlock& block, const History& history, int region, int64_t hop,
                         Adder<kAdd>& adder) {
  const SpreadGraph& graph = block.graph;
  const SpreadRules& rules = block.rules;
  const float* before = history.energies + hop * history.rows;
  const float* after = before + history.rows;
  const int known = *block.count;
  for (int i = threadIdx.x; i < known; i += kThreads) {
    const bool rose = after[i] > before[i];
    history.arriving[i] = rose && after[i] < 1.0f ? history.gradients[i] : 0.0f;
    if (rose) history.gradients[i] = 0.0f;
  }
  __syncthreads();
  const int lane = threadIdx.x % kTeam, teams = kThreads / kTeam;
  const unsigned mask = 0xffu << (threadIdx.x % 32 / kTeam * kTeam);
  for (int i = threadIdx.x / kTeam; i < known;
       i += teams) {  // a team a source, a thread an edge of the block
    const float energy = before[i];
    if (energy < rules.source_floor) continue;
    const int head = graph.first_block[block.table.slot[block.table.touched[i]]];
    float sum = 0.0f;
    for (auto chain = graph.walk_from(lane < kEdges ? head : -1); chain.there(); chain.next()) {
      const int target = graph.targets.at(chain.block)[lane];
      const int place = block.inside(target) ? block.table.find(target) : -1;
      const float arriving = place < 0 ? 0.0f : history.arriving[history.row_of[place]];
      if (arriving == 0.0f) continue;
      const float strength = graph.strengths.at(chain.block)[lane];
      const float factor = block.factor_into(target, region);
      if (!(transfer(energy, strength, rules.decay, factor) > rules.transfer_floor)) continue;
      if (!strongest(graph, head, chain.block, lane, target, strength)) continue;
      sum = __fadd_rn(sum, __fmul_rn(arriving, transfer(1.0f, strength, rules.decay, factor)));
      adder.add(chain.block, lane, __fmul_rn(arriving, transfer(energy, 1.0f, rules.decay, factor)));
    }
    for (int width = kTeam / 2; width > 0; width /= 2)
      sum = __fadd_rn(sum, __shfl_down_sync(mask, sum, width, kTeam));
    if (lane == 0) history.gradients[i] = __fadd_rn(history.gradients[i], sum);
  }
  __syncthreads();
}

template <bool kSecond, bool kAdd>
__global__ void backward_kernel(SpreadBackward job, Tables tables, uint8_t* again, Sums to) {
  __shared__ int count[2];
  const Spread& spread = job.spread;
  const SpreadBlock block{spread.graph, spread.rules, tables.of_block(blockIdx.x), count};
  const History history = History::at(block.table, spread.rules.hops);
  Adder<kAdd> adder{to};
  if constexpr (kAdd) adder.scale = to.scale();
  bool is_clear = false;

  for (int64_t b = blockIdx.x; b < spread.batch; b += gridDim.x) {
    if (kSecond && !again[b]) continue;
    if (!is_clear) block.table.clear();
    is_clear = true;
    const int64_t* seeds = spread.seeds + b * spread.seed_count;
    const float* starts = spread.energies + b * spread.seed_count;
    const int region = block.region_of(spread.seed_count > 0 ? seeds[0] : -1);
    block.begin();
    for (int64_t s = threadIdx.x; s < spread.seed_count; s += kThreads) block.start(seeds[s], starts[s]);
    history.start(block);
    const bool done = block.run(region, history);
    if (!kSecond && threadIdx.x == 0) again[b] = !done;
    if (done) {
      begin_back(block, history, job.gradients + b * spread.k, job.slots + b * spread.k, spread.k);
      for (int64_t hop = spread.rules.hops - 1; hop >= 0; --hop) hop_back(block, history, region, hop, adder);
    }
    block.end();
  }
  if constexpr (!kAdd)
    if (adder.most > 0.0f) atomicMax(to.largest, __float_as_int(adder.most));
}

__global__ void finish_kernel(Sums to) {
  const double scale = to.scale();
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < to.edges;
       i += int64_t{gridDim.x} * kThreads)
    if (to.fixed[i] != 0 && to.sums[i] == 0.0f)
      to.sums[i] = static_cast<float>(static_cast<double>(static_cast<int64_t>(to.fixed[i])) / scale);
}

Passes plan(const SpreadBackward& job) {
  return Passes::plan(job.spread.graph.first_block.rows, job.spread.batch,
                      History::bytes_per_place(job.spread.rules.hops));
}

int64_t edges_of(const SpreadBackward& job) { return job.spread.graph.targets.rows * kEdges; }

template <bool kAdd>
void launch(const SpreadBackward& job, const Passes& passes, const Sums& to, cudaStream_t stream) {
  backward_kernel<false, kAdd><<<static_cast<unsigned>(passes.small.count), kThreads, 0, stream>>>(
      job, passes.small, passes.again, to);
  if (passes.large.count > 0)
    backward_kernel<true, kAdd><<<static_cast<unsigned>(passes.large.count), kThreads, 0, stream>>>(
        job, passes.large, passes.again, to);
}

}  // namespace

// The sums, the largest part in 8 bytes, the tables.
size_t spread_activation_backward_workspace(const SpreadBackward& job) {
  return sizeof(int64_t) * (edges_of(job) + 1) + plan(job).bytes(job.spread.batch);
}

int spread_activation_backward(const SpreadBackward& job, void* workspace, float* sums, Stream opaque) {
  const int64_t edges = edges_of(job);
  if (edges == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  auto* fixed = static_cast<unsigned long long*>(workspace);
  const int cleared = cudaMemsetAsync(fixed, 0, sizeof(int64_t) * (edges + 1), stream);
  const int zeroed = cudaMemsetAsync(sums, 0, sizeof(float) * edges, stream);
  if (cleared != 0 || zeroed != 0) return cleared != 0 ? cleared : zeroed;
  if (job.spread.batch == 0) return 0;
  Passes passes = plan(job);
  passes.place(fixed + edges + 1);
  Sums to{fixed, reinterpret_cast<int*>(fixed + edges), sums, edges, 0};
  while (int64_t{1} << to.spare_bits < job.spread.batch * job.spread.rules.hops) ++to.spare_bits;
  launch<false>(job, passes, to, stream);
  launch<true>(job, passes, to, stream);
  const int64_t blocks = std::min((edges + kThreads - 1) / kThreads, kMostFinishing);
  finish_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(to);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
