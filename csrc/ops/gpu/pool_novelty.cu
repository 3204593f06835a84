// pool_novelty_ on the device. As on the CPU, a chunk of inputs is searched against the pool at once
// (seed_search), and then one block takes them one by one, comparing anew only with candidates that changed
// since; so the result is that of the plain loop to the last bit. At the end the born leave.
//
// What is left out moves behind the others first. The host does not know how many those are: it launches for
// all, and what comes behind the last of them ends at once, or searches for zeros.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/pool_novelty_math.h"
#include "csrc/ops/seed_search_math.h"

// Tests make this small.
#ifndef AESG_POOL_CHUNK
#define AESG_POOL_CHUNK 128
#endif

namespace aesg::gpu {
namespace {

constexpr int kBlock = 256;
// Inputs of the first chunk and of the largest. The later ones are larger: as a rule few inputs are novel,
// they stand in the first, and every chunk costs its launches.
constexpr int64_t kFirstChunk = AESG_POOL_CHUNK, kChunk = 4 * kFirstChunk;
// Candidates kept from the search: when all of them changed since, the input is compared with the whole pool.
constexpr int kKept = 4;

// What lives in the workspace for the length of a call.
struct Workspace {
  int64_t* size;       // [1] candidates in use
  int64_t* first;      // [1] whether the next input is born whatever its count
  float* inverse;      // [n] of the lengths of the inputs; 0: left out
  int64_t* kept;       // [1] inputs that are not left out
  int64_t* places;     // [kept] among the inputs
  float* inputs;       // [n, D] the kept ones in their order, then zeros
  float* unit;         // [kept, D] of length 1
  uint8_t* in_use;     // [P]
  uint8_t* born;       // [P] born in this call, still there to absorb
  uint8_t* changed;    // [P] since the chunk was searched
  float* kept_scores;  // [chunk, kKept]
  int64_t* kept_rows;
  int64_t* where;     // [P] the place of a candidate after the call, -1: it was born
  float* candidates;  // [P, D], these three on their way there
  int32_t* counts;
  int64_t* stamps;
  void* search;
};

// Inputs of the chunk that begins there.
int64_t chunk_at(const PoolNovelty& job, int64_t begin) {
  return std::min(std::max(kFirstChunk, std::min(begin, kChunk)), job.count - begin);
}

SeedSearch search_of(const PoolNovelty& job, const Workspace& work, int64_t first) {
  return {work.inputs + first * job.dim,
          chunk_at(job, first),
          job.dim,
          {job.candidates, job.capacity, job.dim},
          {},
          {work.in_use, job.capacity},
          job.capacity,
          job.threshold,
          kKept};
}

// Lays the parts out from `memory` on; returns how many bytes they take.
size_t lay_out(const PoolNovelty& job, char* memory, Workspace* work) {
  size_t used = 0;
  const auto take = [&](auto** part, int64_t count) {
    *part = reinterpret_cast<std::remove_reference_t<decltype(*part)>>(memory + used);
    used += (count * sizeof(**part) + 255) / 256 * 256;
  };
  take(&work->size, 1);
  take(&work->first, 1);
  take(&work->inverse, job.count);
  take(&work->kept, 1);
  take(&work->places, job.count);
  take(&work->inputs, job.count * job.dim);
  take(&work->unit, job.count * job.dim);
  take(&work->in_use, job.capacity);
  take(&work->born, job.capacity);
  take(&work->changed, job.capacity);
  take(&work->kept_scores, kChunk * kKept);
  take(&work->kept_rows, kChunk * kKept);
  take(&work->where, job.capacity);
  take(&work->candidates, job.capacity * job.dim);
  take(&work->counts, job.capacity);
  take(&work->stamps, job.capacity);
  work->search = memory + used;
  size_t most = 0;  // chunks of other lengths may be searched otherwise
  for (int64_t begin = 0; begin < job.count; begin += chunk_at(job, begin))
    most = std::max(most, seed_search_workspace(search_of(job, *work, begin)));
  return used + most;
}

// One thread an input: its length, in the order of the CPU. What is zero or not finite is left out.
__global__ void scale_inputs(PoolNovelty job, Workspace work) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i == 0) {
    const int64_t size = job.state[0];
    *work.size = size < 0 ? 0 : size > job.capacity ? job.capacity : size;
    *work.first = job.birth_first && (job.living == nullptr || *job.living == 0);
  }
  if (i >= job.count) return;
  const float inverse = inverse_norm(sum_of_squares(job.inputs + i * job.dim, job.dim));
  work.inverse[i] = inverse > 0.0f ? inverse : 0.0f;
}

// One block: `kept` and `places`. Every thread ranks a part of its own, in order.
__global__ void rank_inputs(PoolNovelty job, Workspace work) {
  __shared__ int64_t starts[kBlock + 1];
  const int64_t each = (job.count + kBlock - 1) / kBlock, begin = threadIdx.x * each;
  const int64_t end = begin + each < job.count ? begin + each : job.count;
  int64_t mine = 0;
  for (int64_t i = begin; i < end; ++i) mine += work.inverse[i] != 0.0f;
  starts[threadIdx.x + 1] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    starts[0] = 0;
    for (int i = 0; i < kBlock; ++i) starts[i + 1] += starts[i];
    *work.kept = starts[kBlock];
  }
  __syncthreads();
  int64_t place = starts[threadIdx.x];
  for (int64_t i = begin; i < end; ++i)
    if (work.inverse[i] != 0.0f) work.places[place++] = i;
}

// A thread a value of `inputs` and `unit`.
__global__ void gather_inputs(PoolNovelty job, Workspace work) {
  const int64_t all = job.count * job.dim, kept = *work.kept * job.dim, step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < all; i += step) {
    float value = 0.0f;
    if (i < kept) {
      const int64_t from = work.places[i / job.dim];
      value = job.inputs[from * job.dim + i % job.dim];
      work.unit[i] = __fmul_rn(value, work.inverse[from]);
    }
    work.inputs[i] = value;
  }
}

// For the first chunk; each chunk then marks for the next. Behind the last input there is nothing to find.
__global__ void mark_in_use(PoolNovelty job, Workspace work) {
  const int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (row < job.capacity) work.in_use[row] = *work.kept > 0 && row < *work.size;
}

// Cosine of an input of length 1 and a candidate, with the bits of seed_search. in_fours: both are read 16
// bytes at a time, as the rows of a warp lie in as many lines.
__device__ float similarity(const float* unit, const float* candidate, int64_t dim, bool in_fours) {
  float sum = 0;
  double squares = 0;
  const auto add = [&](float u, float x) {
    sum = __fmaf_rn(u, x, sum);
    squares = __dadd_rn(squares, __dmul_rn(x, x));
  };
  if (in_fours) {
#pragma unroll 4
    for (int64_t d = 0; d < dim; d += 4) {
      const float4 x = *reinterpret_cast<const float4*>(candidate + d);
      const float4 u = *reinterpret_cast<const float4*>(unit + d);
      add(u.x, x.x);
      add(u.y, x.y);
      add(u.z, x.z);
      add(u.w, x.w);
    }
  } else {
    for (int64_t d = 0; d < dim; ++d) add(unit[d], candidate[d]);
  }
  return clamp_similarity(__fmul_rn(sum, inverse_norm(squares)));
}

struct Scored {
  float score;
  int row;  // -1: none

  __device__ bool before(const Scored& other) const {
    if (row < 0 || other.row < 0) return row >= 0 && other.row < 0;
    return ranks_before(score, row, other.score, other.row);
  }
};

// What decides which candidate of a full pool gives way.
struct Held {
  int64_t stamp;
  int32_t count;
  int row;  // -1: none
  uint8_t born;

  __device__ bool before(const Held& other) const {
    if (row < 0 || other.row < 0) return row >= 0 && other.row < 0;
    if (gives_way_before(born, count, stamp, other.born, other.count, other.stamp)) return true;
    return !gives_way_before(other.born, other.count, other.stamp, born, count, stamp) && row < other.row;
  }
};

// The first of all threads' values in the order of `before`; every thread gets it. Ends with a barrier.
template <typename T>
__device__ T first_of_block(T mine, T* shared) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  for (int width = kBlock / 2; width > 0; width /= 2) {
    if (threadIdx.x < width && shared[threadIdx.x + width].before(shared[threadIdx.x]))
      shared[threadIdx.x] = shared[threadIdx.x + width];
    __syncthreads();
  }
  const T first = shared[0];
  __syncthreads();
  return first;
}

// One block takes the kept inputs of a chunk in order. All threads hold the same size, clock and first.
__global__ void take_chunk(PoolNovelty job, Workspace work, int64_t begin, int64_t length) {
  __shared__ Scored scored[kBlock];
  __shared__ Held held[kBlock];
  __shared__ int changed[kChunk];
  const int64_t left = *work.kept - begin, inputs = left < length ? left : length;
  if (left <= 0) return;
  int64_t size = *work.size, clock = job.state[1];
  const int64_t searched = size;
  bool first = *work.first != 0;
  const bool in_fours = job.dim % 4 == 0 && reinterpret_cast<uintptr_t>(job.candidates) % 16 == 0;
  int changes = 0;

  for (int64_t i = 0; i < inputs; ++i) {
    const int64_t place = work.places[begin + i];  // where it is told what was born
    const float* input = work.inputs + (begin + i) * job.dim;
    const float* unit = work.unit + (begin + i) * job.dim;

    // The best that did not change since the search, then what changed, or all if nothing is known.
    Scored best{0.0f, -1};
    int found = 0;
    for (; found < kKept && work.kept_rows[i * kKept + found] >= 0; ++found) {
      const int row = static_cast<int>(work.kept_rows[i * kKept + found]);
      if (best.row < 0 && !work.changed[row]) best = {work.kept_scores[i * kKept + found], row};
    }
    const bool all = best.row < 0 && found == (searched < kKept ? searched : kKept);
    const int64_t compared = all ? size : changes;
    for (int64_t c = threadIdx.x; c < compared; c += kBlock) {
      const int row = all ? static_cast<int>(c) : changed[c];
      const Scored entry{similarity(unit, job.candidates + row * job.dim, job.dim, in_fours), row};
      if (entry.score >= job.threshold && entry.before(best)) best = entry;
    }
    best = first_of_block(best, scored);

    int64_t row = best.row;
    int32_t count = 1;
    bool was_born = false;
    if (row >= 0) {
      count = job.counts[row] + 1;
      was_born = work.born[row] != 0;
    } else if (size < job.capacity) {
      row = size++;
    } else {  // the place of the least joined, then oldest; the born stay as long as there are others
      Held weakest{0, 0, -1, 0};
#pragma unroll 4
      for (int64_t r = threadIdx.x; r < size; r += kBlock) {
        const Held one{job.stamps[r], job.counts[r], static_cast<int>(r), work.born[r]};
        if (one.before(weakest)) weakest = one;
      }
      row = first_of_block(weakest, held).row;
    }
    const bool is_born = !was_born && (count >= job.birth_count || first);
    const bool is_change = !work.changed[row];
    __syncthreads();  // all have read what now changes

    float* candidate = job.candidates + row * job.dim;
    for (int64_t d = threadIdx.x; d < job.dim; d += kBlock) {
      const float mean =
          best.row >= 0 ? running_mean(candidate[d], input[d], static_cast<float>(count)) : input[d];
      candidate[d] = mean;
      if (is_born) job.born_vectors[place * job.dim + d] = mean;
    }
    if (threadIdx.x == 0) {
      job.counts[row] = count;
      job.stamps[row] = clock;
      work.born[row] = was_born || is_born;
      if (is_born) job.born[place] = 1;
      if (is_change) {
        work.changed[row] = 1;
        changed[changes] = static_cast<int>(row);
      }
    }
    changes += is_change;
    ++clock;
    first = first && !is_born;
    __syncthreads();
  }

  for (int c = threadIdx.x; c < changes; c += kBlock) work.changed[changed[c]] = 0;
  const bool is_last = left <= length;
  for (int64_t r = (is_last ? 0 : searched) + threadIdx.x; r < size; r += kBlock) work.in_use[r] = !is_last;
  if (threadIdx.x == 0) {
    *work.size = size;
    *work.first = first;
    job.state[1] = clock;
  }
}

// One block: where every candidate goes when the born leave and the others close ranks.
__global__ void plan_moves(PoolNovelty job, Workspace work) {
  __shared__ int64_t stay[kBlock + 1];
  const int64_t size = *work.size, each = (size + kBlock - 1) / kBlock;
  const int64_t begin = threadIdx.x * each, end = begin + each < size ? begin + each : size;
  int64_t staying = 0;
  for (int64_t row = begin; row < end; ++row) staying += !work.born[row];
  stay[threadIdx.x + 1] = staying;
  __syncthreads();
  if (threadIdx.x == 0) {
    stay[0] = 0;
    for (int i = 0; i < kBlock; ++i) stay[i + 1] += stay[i];
    job.state[0] = stay[kBlock];
  }
  __syncthreads();
  int64_t place = stay[threadIdx.x];
  for (int64_t row = begin; row < end; ++row) work.where[row] = work.born[row] ? -1 : place++;
}

// A thread a value of those that move, to the workspace and then to their new places.
template <bool kBack>
__global__ void move_candidates(PoolNovelty job, Workspace work) {
  const int64_t all = *work.size * job.dim, step = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < all; i += step) {
    const int64_t row = i / job.dim, d = i % job.dim, to = work.where[row];
    if (to < 0 || to == row) continue;
    if (kBack) {
      job.candidates[to * job.dim + d] = work.candidates[i];
    } else {
      work.candidates[i] = job.candidates[i];
    }
    if (d != 0) continue;
    if (kBack) {
      job.counts[to] = work.counts[row];
      job.stamps[to] = work.stamps[row];
    } else {
      work.counts[row] = job.counts[row];
      work.stamps[row] = job.stamps[row];
    }
  }
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(std::clamp<int64_t>((threads + kBlock - 1) / kBlock, 1, kMostBlocks));
}

}  // namespace

size_t pool_novelty_workspace(const PoolNovelty& job) {
  Workspace work;
  return lay_out(job, nullptr, &work);
}

int pool_novelty(const PoolNovelty& job, void* workspace, Stream opaque) {
  if (job.count == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Workspace work;
  lay_out(job, static_cast<char*>(workspace), &work);
  int error = cudaMemsetAsync(job.born, 0, job.count, stream);
  if (error == 0) error = cudaMemsetAsync(job.born_vectors, 0, sizeof(float) * job.count * job.dim, stream);
  if (error == 0) error = cudaMemsetAsync(work.born, 0, job.capacity, stream);
  if (error == 0) error = cudaMemsetAsync(work.changed, 0, job.capacity, stream);
  if (error != 0) return error;
  const auto inputs = static_cast<unsigned>((job.count + kBlock - 1) / kBlock);
  const auto candidates = static_cast<unsigned>((job.capacity + kBlock - 1) / kBlock);
  scale_inputs<<<inputs, kBlock, 0, stream>>>(job, work);
  rank_inputs<<<1, kBlock, 0, stream>>>(job, work);
  gather_inputs<<<blocks_for(job.count * job.dim), kBlock, 0, stream>>>(job, work);
  mark_in_use<<<candidates, kBlock, 0, stream>>>(job, work);
  for (int64_t begin = 0; begin < job.count; begin += chunk_at(job, begin)) {
    const SeedSearch search = search_of(job, work, begin);
    error = seed_search(search, work.search, work.kept_scores, work.kept_rows, opaque);
    if (error != 0) return error;
    take_chunk<<<1, kBlock, 0, stream>>>(job, work, begin, search.batch);
  }
  plan_moves<<<1, kBlock, 0, stream>>>(job, work);
  const unsigned values = blocks_for(job.capacity * job.dim);
  move_candidates<false><<<values, kBlock, 0, stream>>>(job, work);
  move_candidates<true><<<values, kBlock, 0, stream>>>(job, work);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
