// activate_context on the device: one block a query does it all. Seeds are thinned, streams primed, energy
// spread (spread.cuh), the seeds put in front of what it reached, vectors gathered. Energies and members have
// the bits of the CPU: sums are integers, and ranks are a total order.
#include "csrc/ops/activate_context_math.h"
#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/spread.cuh"
#include "csrc/ops/gpu/spread_tangents.cuh"
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
  // d value / d similarity of seed s, which is column c.
  __device__ float slope(int i, int s, const SpreadBlock& block, const Tangents& tangents, int c) const {
    if (i < seeds) return i == s ? 1.0f : 0.0f;
    if (!is_found(i - seeds)) return 0.0f;
    const float energy = found.score[i - seeds];
    return led_slope(tangents.slope(block, found.slot[i - seeds], c), s == 0, energy, best_seed);
  }

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

// Copies of the vectors of `count` slots, a warp a slot.
__device__ void gather(const ActivateContext& job, const int64_t* slots, int64_t count, float* to) {
  for (int64_t i = threadIdx.x / kWarp; i < count; i += kThreads / kWarp) {
    const int64_t slot = slots[i];
    for (int64_t d = threadIdx.x % kWarp; d < job.dim; d += kWarp)
      to[i * job.dim + d] = slot >= 0 ? job.vectors.at(slot)[d] : 0.0f;
  }
}

template <bool kSecond, bool kTraced>
__global__ void activate_kernel(ActivateContext job, Tables tables, uint8_t* again, int capacity,
                                Contexts out) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  __shared__ int count[2];
  __shared__ double scales[kColumns];
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
    block.begin();  // ends with a barrier: what is shared is read no more
    thin(job, b, block, entries, out);
    entries.best_seed = entries.seeds > 0 ? similarity[0] : 0.0f;
    const int64_t first = entries.seeds > 0      ? seed[0]
                          : job.primed_count > 0 ? primed_slot(job, b, 0, block)
                                                 : -1;
    const int region = block.region_of(first);
    const auto primed_start = [&](int64_t p) {
      return primed_energy(job.primed_energies[b * job.primed_count + p], job.share);
    };
    int64_t* members = out.members + b * job.k;
    bool done = true;
    // With derivatives once for every kColumns seeds, else once.
    for (int column = 0; done && (column == 0 || (kTraced && column < entries.seeds)); column += kColumns) {
      if (column > 0) block.begin();
      for (int s = threadIdx.x; s < entries.seeds; s += kThreads) block.start(seed[s], similarity[s]);
      for (int64_t p = threadIdx.x; p < job.primed_count; p += kThreads)
        block.start(primed_slot(job, b, p, block), primed_start(p));
      const Tangents tangents = Tangents::at(block.table, scales);
      if constexpr (kTraced) {
        // What is primed is constant, and comes behind the seeds: it counts only where it is stronger.
        tangents.start(
            block, [&](int64_t s) { return seed[s]; }, [&](int64_t s) { return similarity[s]; }, column,
            entries.seeds);
        done = block.run(region, tangents);
      } else {
        done = block.run(region);
      }
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
      for (int i = threadIdx.x; i < entries.count(); i += kThreads) {
        if (!(state[i] & Entries::kKept)) continue;
        const int rank = entries.rank_to_show(i);
        members[rank] = entries.slot(i);
        out.energies[b * job.k + rank] = entries.value(i);
        if constexpr (kTraced) {
          float* row = out.jacobian + (b * job.k + rank) * job.seed_count;
          for (int c = 0; c < kColumns && column + c < entries.seeds; ++c)
            row[column + c] = entries.slope(i, column + c, block, tangents, c);
        }
      }
      __syncthreads();
      block.end();
    }
    if (!kSecond && threadIdx.x == 0) again[b] = !done;
    if (!done) continue;
    if (out.vectors) gather(job, members, job.k, out.vectors + b * job.k * job.dim);
    if constexpr (kTraced)
      gather(job, out.seeds + b * job.seed_count, job.seed_count,
             out.seed_vectors + b * job.seed_count * job.dim);
  }
}

Passes plan(const ActivateContext& job) {
  return Passes::plan(job.graph.first_block.rows, job.batch, job.jacobian ? Tangents::kBytesPerPlace : 0);
}

template <bool kTraced>
int launch(const ActivateContext& job, const Passes& passes, const Contexts& out, cudaStream_t stream) {
  const int capacity = buffer_size(job.k);
  const size_t shared = BlockTopK::bytes(capacity) + Entries::bytes(job.seed_count, job.k);
  activate_kernel<false, kTraced><<<static_cast<unsigned>(passes.small.count), kThreads, shared, stream>>>(
      job, passes.small, passes.again, capacity, out);
  if (passes.large.count > 0)
    activate_kernel<true, kTraced><<<static_cast<unsigned>(passes.large.count), kThreads, shared, stream>>>(
        job, passes.large, passes.again, capacity, out);
  return cudaGetLastError();
}

}  // namespace

size_t activate_context_workspace(const ActivateContext& job) { return plan(job).bytes(job.batch); }

int activate_context(const ActivateContext& job, void* workspace, const Contexts& out, Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Passes passes = plan(job);
  passes.place(workspace);
  return job.jacobian ? launch<true>(job, passes, out, stream) : launch<false>(job, passes, out, stream);
}

}  // namespace aesg::gpu
