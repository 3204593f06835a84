// activate_context on the device: one block a query does it all. Seeds are thinned, streams primed, energy
// spread (spread.cuh), the seeds put in front of what it reached, vectors gathered. Energies and members have
// the bits of the CPU: sums are integers, and ranks are a total order.
#include "csrc/ops/activate_context_math.h"
#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/spread.cuh"
#include "csrc/ops/gpu/top_k.cuh"

namespace aesg::gpu {
namespace {

constexpr int kWarp = 32;

// Entries of one context: first the S seeds, then the K members that spreading found. In shared memory.
struct Entries {
  int64_t* seed;      // [S]
  float* similarity;  // [S]
  uint8_t* state;     // [S + K]
  int seeds, members;
  float best_seed;  // similarity of the first seed
  const BlockTopK& found;

  static constexpr uint8_t kIn = 1, kLeads = 2, kKept = 4;

  __host__ __device__ static size_t bytes(int64_t seeds, int64_t members) {
    return seeds * (sizeof(int64_t) + sizeof(float)) + seeds + members;
  }

  __device__ int count() const { return seeds + members; }
  __device__ bool is_found(int i) const { return i < *found.size; }
  __device__ int64_t slot(int i) const {
    return i < seeds ? seed[i] : is_found(i - seeds) ? found.slot[i - seeds] : -1;
  }
  __device__ float value(int i) const {
    if (i < seeds) return similarity[i];
    return is_found(i - seeds) ? led_energy(found.score[i - seeds], best_seed) : 0.0f;
  }
  __device__ bool leads(int i) const { return (state[i] & kLeads) != 0; }

  // Seeds that are among the members are no entries of their own; members that are seeds lead.
  __device__ uint8_t first_state(int i) const {
    const int64_t wanted = slot(i);
    bool twice = false;
    if (i < seeds) {
      if (wanted < 0) return 0;
      for (int m = 0; m < members && is_found(m); ++m) twice |= found.slot[m] == wanted;
      return twice ? 0 : kIn | kLeads;
    }
    if (wanted >= 0)
      for (int s = 0; s < seeds; ++s) twice |= seed[s] == wanted;
    return twice ? kIn | kLeads : kIn;
  }

  // How many are kept rather than entry i; at least K entries are in, so ranks below K are all taken.
  __device__ int rank_to_keep(int i) const {
    int rank = 0;
    for (int j = 0; j < count(); ++j) {
      if (j == i || !(state[j] & kIn)) continue;
      const bool before = kept_before(leads(j), value(j), leads(i), value(i));
      const bool after = kept_before(leads(i), value(i), leads(j), value(j));
      rank += before || (!after && j < i);
    }
    return rank;
  }

  // The place of kept entry i in the context.
  __device__ int rank_to_show(int i) const {
    int rank = 0;
    for (int j = 0; j < count(); ++j) {
      if (j == i || !(state[j] & kKept)) continue;
      const bool before = shown_before(leads(j), value(j), leads(i), value(i));
      const bool after = shown_before(leads(i), value(i), leads(j), value(j));
      rank += before || (!after && j < i);
    }
    return rank;
  }
};

// Seeds of query b that are strong enough, to shared memory and the output.
__device__ void thin(const ActivateContext& job, int64_t b, const SpreadBlock& block, const Entries& entries,
                     const Contexts& out) {
  const float* similarities = job.similarities + b * job.seed_count;
  const int64_t* seeds = job.seeds + b * job.seed_count;
  const float best = job.seed_count > 0 ? similarities[0] : 0.0f;
  const float least = least_similarity(job.relative, best, job.bar ? job.bar[b] : 0.0f);
  for (int s = threadIdx.x; s < entries.seeds; s += kThreads) {
    const bool sound = isfinite(similarities[s]) && (seeds[s] == -1 || block.inside(seeds[s]));
    const bool strong = sound && similarities[s] >= least;
    entries.seed[s] = strong ? seeds[s] : -1;
    entries.similarity[s] = strong ? similarities[s] : 0.0f;
    out.seeds[b * job.seed_count + s] = entries.seed[s];
    out.similarities[b * job.seed_count + s] = entries.similarity[s];
  }
  __syncthreads();
}

// The slot that primes the stream of query b, -1 when it was freed or given to another concept.
__device__ int64_t primed_slot(const ActivateContext& job, int64_t b, int64_t p, const SpreadBlock& block) {
  const int64_t at = b * job.primed_count + p, slot = job.primed[at];
  if (!block.inside(slot) || !job.graph.active[slot] || !isfinite(job.primed_energies[at])) return -1;
  return !job.current_ids || job.current_ids[slot] == job.primed_ids[at] ? slot : -1;
}

template <bool kSecond>
__global__ void activate_kernel(ActivateContext job, Tables tables, uint8_t* again, int capacity,
                                Contexts out) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  __shared__ int count[2];
  const SpreadBlock block{job.graph, job.rules, tables.of_block(blockIdx.x), count};
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
  auto* seed = reinterpret_cast<int64_t*>(memory + BlockTopK::bytes(capacity));
  auto* similarity = reinterpret_cast<float*>(seed + job.seed_count);
  auto* state = reinterpret_cast<uint8_t*>(similarity + job.seed_count);
  Entries entries{seed, similarity, state, static_cast<int>(job.seed_count), static_cast<int>(job.k),
                  0.0f, best};

  bool is_clear = false;
  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    if (kSecond && !again[b]) continue;
    if (!is_clear) block.table.clear();
    is_clear = true;
    block.begin();
    thin(job, b, block, entries, out);
    entries.best_seed = entries.seeds > 0 ? similarity[0] : 0.0f;
    for (int s = threadIdx.x; s < entries.seeds; s += kThreads) block.start(seed[s], similarity[s]);
    for (int64_t p = threadIdx.x; p < job.primed_count; p += kThreads)
      block.start(primed_slot(job, b, p, block),
                  primed_energy(job.primed_energies[b * job.primed_count + p], job.share));
    const int64_t first = entries.seeds > 0      ? seed[0]
                          : job.primed_count > 0 ? primed_slot(job, b, 0, block)
                                                 : -1;
    const bool done = block.run(block.region_of(first));
    if (!kSecond && threadIdx.x == 0) again[b] = !done;
    if (!done) {
      block.end();
      continue;
    }
    block.choose(best);

    for (int i = threadIdx.x; i < entries.count(); i += kThreads) state[i] = entries.first_state(i);
    __syncthreads();
    // Bits of other entries are read meanwhile, so the new ones wait for the barrier.
    for (int base = 0; base < entries.count(); base += kThreads) {
      const int i = base + threadIdx.x;
      const bool in = i < entries.count() && (state[i] & Entries::kIn);
      const bool kept = in && entries.rank_to_keep(i) < entries.members;
      __syncthreads();
      if (kept) state[i] |= Entries::kKept;
      __syncthreads();
    }
    int64_t* members = out.members + b * job.k;
    for (int i = threadIdx.x; i < entries.count(); i += kThreads) {
      if (!(state[i] & Entries::kKept)) continue;
      const int rank = entries.rank_to_show(i);
      members[rank] = entries.slot(i);
      out.energies[b * job.k + rank] = entries.value(i);
    }
    block.end();

    if (out.vectors) {  // a warp a member
      for (int64_t i = threadIdx.x / kWarp; i < job.k; i += kThreads / kWarp) {
        const int64_t slot = members[i];
        float* to = out.vectors + (b * job.k + i) * job.dim;
        for (int64_t d = threadIdx.x % kWarp; d < job.dim; d += kWarp)
          to[d] = slot >= 0 ? job.vectors.at(slot)[d] : 0.0f;
      }
    }
  }
}

}  // namespace

size_t activate_context_workspace(const ActivateContext& job) {
  return Passes::plan(job.graph.first_block.rows, job.batch).bytes(job.batch);
}

int activate_context(const ActivateContext& job, void* workspace, const Contexts& out, Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Passes passes = Passes::plan(job.graph.first_block.rows, job.batch);
  passes.place(workspace);
  const int capacity = buffer_size(job.k);
  const size_t shared = BlockTopK::bytes(capacity) + Entries::bytes(job.seed_count, job.k);
  activate_kernel<false><<<static_cast<unsigned>(passes.small.count), kThreads, shared, stream>>>(
      job, passes.small, passes.again, capacity, out);
  if (passes.large.count > 0)
    activate_kernel<true><<<static_cast<unsigned>(passes.large.count), kThreads, shared, stream>>>(
        job, passes.large, passes.again, capacity, out);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
