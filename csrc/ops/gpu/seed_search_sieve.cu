// seed_search for many queries, where the products are the work: tensor cores multiply queries and rows
// rounded to bf16, and these products only sift. A pair that may reach its query's bar is put on the query's
// list, and all on it are summed again in the promised order; that sum decides. The sieve's error cannot
// exceed the margin (sieve_rows.cuh), so nothing is lost.
//
// First, a sample of the rows: each warp's rows have a highest product. Less the row's margin it cannot be
// above the row's similarity, so the k-th highest of these is a bar that k rows reach. Second, all rows:
// pairs whose product plus margin reaches the bar go to the list. Third, one block a query sums and ranks its
// list. Where a list was too short (thousands of rows alike), the query is left to the exact search, which
// follows in any case and nearly always finds nothing to do.
//
// Rows are held in registers, as the left factor, brought to length 1 and rounded on their way from memory:
// so they are read once for all queries, which pass by in shared memory.
#include <algorithm>

#include "csrc/ops/gpu/async_copy.cuh"
#include "csrc/ops/gpu/mma.cuh"
#include "csrc/ops/gpu/seed_search.cuh"
#include "csrc/ops/gpu/sieve_rows.cuh"
#include "csrc/ops/gpu/top_k.cuh"

// Tests make these small.
#ifndef AESG_SIEVE_LEAST_ROWS
#define AESG_SIEVE_LEAST_ROWS 8192
#endif
#ifndef AESG_SIEVE_LIST
#define AESG_SIEVE_LIST 2048
#endif
#ifndef AESG_SIEVE_CHUNK
#define AESG_SIEVE_CHUNK 4096
#endif
#ifndef AESG_SIEVE_BLOCKS
#define AESG_SIEVE_BLOCKS (2 * kResidentBlocks)
#endif

namespace aesg::gpu {
namespace {

constexpr int kWarps = 8;
constexpr int kSiftThreads = kWarp * kWarps;
constexpr int kRegisterSteps = 16;      // of 16 dimensions of 16 rows, that a warp holds: 64 registers
constexpr int kTile = 64;               // queries of a tile
constexpr int kList = AESG_SIEVE_LIST;  // candidates of a query
constexpr int64_t kFewQueries = 8;      // so few are searched exactly, row by row
constexpr int64_t kMostSieveK = 64;
constexpr int64_t kMostDim = 256;             // of rows that 64 registers hold
constexpr int64_t kChunk = AESG_SIEVE_CHUNK;  // queries searched together: 32 MiB of lists
constexpr int64_t kWantedFound = 160;  // candidates a query, about, from which the size of the sample follows
constexpr int64_t kMostTiles = (kChunk + kTile - 1) / kTile;
constexpr int64_t kMostSampled = 512;       // tiles of rows
constexpr int64_t kMostAgainParts = 64;     // of the rows, where lists were too short
constexpr int64_t kMostAgainRanked = 1024;  // of what the parts find

struct Plan {
  int steps;                      // of 16 dimensions
  int64_t rows;                   // of a block
  int64_t tiles;                  // of rows
  int64_t sampled, apart;         // tiles of the sample, and from one of them to the next
  int64_t maxima;                 // of a query
  int64_t query_tiles;            // of a chunk
  int64_t splits, sample_splits;  // parts of these, where tiles of rows are too few to keep the device busy
  bool vectorizable;
};

Plan plan(const SeedSearch& job, int64_t batch) {
  Plan made;
  made.steps = job.dim <= 64 ? 4 : job.dim <= 128 ? 8 : 16;
  made.rows = int64_t{kWarps} * 16 * (kRegisterSteps / made.steps);
  made.tiles = (job.count + made.rows - 1) / made.rows;
  const int64_t for_few = (made.tiles * job.k + kWantedFound - 1) / kWantedFound;
  const int64_t for_bar = 4 * job.k / kWarps + 1;  // several times k maxima
  made.sampled = std::min({std::max(for_few, for_bar), kMostSampled, made.tiles});
  made.apart = made.tiles / made.sampled;
  made.maxima = made.sampled * kWarps;
  made.query_tiles = (batch + kTile - 1) / kTile;
  const auto splits = [&](int64_t tiles) {
    return std::clamp<int64_t>((AESG_SIEVE_BLOCKS + tiles - 1) / tiles, 1, made.query_tiles);
  };
  made.splits = splits(made.tiles);
  made.sample_splits = splits(made.sampled);
  made.vectorizable = is_vectorizable(job);
  return made;
}

struct Workspace {
  float* inverse;    // [N] inverse norms, where none were given
  uint32_t* codes;   // [queries, 8 steps] pairs of bf16; queries padded to whole tiles, zero there
  float* bars;       // [queries], NaN in the padding
  float* maxima;     // [queries, maxima]
  int* counts;       // [queries] candidates, also those that had no room
  int* lists;        // [queries, kList] their slots
  int* again;        // [queries] left to the exact search
  int* again_count;  // [1] how many
  int* query_error;  // [1] behind it: the bits of the largest rounding error of a query, a float
  int* asks;         // [tiles of queries] behind that: 1 unless all of a tile are idle
};

// ---- queries

// A warp a query: its codes and how far they are off.
__global__ void code_queries(UnitQueries units, int64_t batch, int64_t dim, int words, Workspace work) {
  const int lane = threadIdx.x % kWarp;
  const int64_t b = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;  // the grid is padded
  float lost = 0.0f;
  for (int w = lane; w < words; w += kWarp) {
    const int64_t d = 2 * w;
    const float low = b < batch && d < dim ? units.base[b * units.pitch + d] : 0.0f;
    const float high = b < batch && d + 1 < dim ? units.base[b * units.pitch + d + 1] : 0.0f;
    const uint32_t code = pack_bf16(low, high);
    work.codes[b * words + w] = code;
    const float low_error = __fsub_rn(low, low_of_bf16(code)),
                high_error = __fsub_rn(high, high_of_bf16(code));
    lost = __fmaf_rn(high_error, high_error, __fmaf_rn(low_error, low_error, lost));
  }
  for (int apart = kWarp / 2; apart > 0; apart /= 2)
    lost = __fadd_rn(lost, __shfl_xor_sync(0xffffffffu, lost, apart, kWarp));
  if (lane != 0) return;
  work.counts[b] = 0;
  if (b < batch && !units.is_idle(b)) work.asks[b / kTile] = 1;
  if (lost > 0.0f) atomicMax(work.query_error, __float_as_int(__fsqrt_rn(lost)));  // not NaN
}

// ---- rows

__global__ void scale_rows(SeedSearch job, float* inverse) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row < job.count) inverse[row] = inverse_norm(sum_of_squares(job.vectors.at(row), job.dim));
}

// ---- products

template <int K>
struct QueryTile {
  static constexpr int kWords = 8 * K;
  // Two queries' 64 bytes then lie in all 32 banks.
  uint32_t codes[kTile][kWords + 16];
  float bars[kTile];
};

template <int K, bool kSample>
__device__ void bring(const Workspace& work, int64_t tile, QueryTile<K>* to) {
  constexpr int kParts = QueryTile<K>::kWords / 4;
  const uint32_t* from = work.codes + tile * kTile * QueryTile<K>::kWords;
  for (int i = threadIdx.x; i < kTile * kParts; i += kSiftThreads)
    copy_16(&to->codes[i / kParts][i % kParts * 4], from + 4 * i);
  if (!kSample && threadIdx.x < kTile / 4)
    copy_16(&to->bars[4 * threadIdx.x], work.bars + tile * kTile + 4 * threadIdx.x);
}

// A block takes rows and lets all queries (or a part of them) pass by. kSample: writes the highest of a
// warp's sums for each query; else puts rows whose sums reach the bar on the query's list.
template <int K, bool kSample>
__global__ void __launch_bounds__(kSiftThreads, 2) sift(SeedSearch job, Plan made, Workspace work) {
  extern __shared__ __align__(16) char memory[];
  constexpr int kBlocks = kRegisterSteps / K;  // of 16 rows
  auto* tiles = reinterpret_cast<QueryTile<K>*>(memory);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, g = lane / 4, c = lane % 4;
  const unsigned splits = static_cast<unsigned>(kSample ? made.sample_splits : made.splits);
  const unsigned place = blockIdx.x / splits, split = blockIdx.x % splits;
  // Tiles of queries of a chunk and rows are few enough for 32 bits.
  const int begin = static_cast<int>(split * made.query_tiles / splits);
  const int end = static_cast<int>((split + 1) * made.query_tiles / splits);
  __shared__ bool asks[kMostTiles];
  for (int t = threadIdx.x; t < made.query_tiles; t += kSiftThreads) asks[t] = work.asks[t] != 0;
  __syncthreads();
  const auto next_asking = [&](int t) {
    while (t < end && !asks[t]) ++t;
    return t;
  };
  const int first = next_asking(begin);
  if (first == end) return;
  bring<K, kSample>(work, first, &tiles[0]);
  commit_copies();

  const int first_row =
      static_cast<int>((kSample ? place * made.apart : place) * made.rows) + warp * 16 * kBlocks;
  const Margin margin(__int_as_float(*work.query_error), K);
  uint32_t rows[kBlocks][K][4];
  float start[kBlocks][2];
#pragma unroll
  for (int m = 0; m < kBlocks; ++m)
    load_rows<K, kSample>(job, made.vectorizable, int64_t{first_row} + 16 * m, margin, rows[m], start[m]);

  for (int t = first, next, stage = 0; t < end; t = next, stage ^= 1) {
    next = next_asking(t + 1);
    wait_for_copies<0>();
    __syncthreads();  // the tile is there for all, and all are done with the one before it
    if (next < end) bring<K, kSample>(work, next, &tiles[stage ^ 1]);
    commit_copies();
    const QueryTile<K>& tile = tiles[stage];
#pragma unroll 1
    for (int n = 0; n < kTile; n += 8) {
      float sum[kBlocks][4];
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        sum[m][0] = sum[m][1] = start[m][0];
        sum[m][2] = sum[m][3] = start[m][1];
      }
#pragma unroll
      for (int j = 0; j < K / 2; ++j) {
        const uint4 codes = *reinterpret_cast<const uint4*>(&tile.codes[n + g][16 * j + 4 * c]);
#pragma unroll
        for (int m = 0; m < kBlocks; ++m) multiply_add(sum[m], rows[m][2 * j], codes.x, codes.y);
#pragma unroll
        for (int m = 0; m < kBlocks; ++m) multiply_add(sum[m], rows[m][2 * j + 1], codes.z, codes.w);
      }
      const int query = t * kTile + n + 2 * c;
      if (kSample) {
        float highest[2] = {-INFINITY, -INFINITY};  // fmaxf passes over NaN
#pragma unroll
        for (int m = 0; m < kBlocks; ++m) {
          highest[0] = fmaxf(highest[0], fmaxf(sum[m][0], sum[m][2]));
          highest[1] = fmaxf(highest[1], fmaxf(sum[m][1], sum[m][3]));
        }
#pragma unroll
        for (int apart = 4; apart < kWarp; apart *= 2) {
          highest[0] = fmaxf(highest[0], __shfl_xor_sync(0xffffffffu, highest[0], apart, kWarp));
          highest[1] = fmaxf(highest[1], __shfl_xor_sync(0xffffffffu, highest[1], apart, kWarp));
        }
        if (g == 0) {
          float* to = work.maxima + int64_t{query} * made.maxima + place * kWarps + warp;
          to[0] = highest[0];
          to[made.maxima] = highest[1];
        }
      } else {
        const float bars[2] = {tile.bars[n + 2 * c], tile.bars[n + 2 * c + 1]};
        bool any = false;
#pragma unroll
        for (int m = 0; m < kBlocks; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i) any |= sum[m][i] >= bars[i % 2];
        if (!__any_sync(0xffffffffu, any)) continue;  // nearly always
#pragma unroll
        for (int m = 0; m < kBlocks; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (!(sum[m][i] >= bars[i % 2])) continue;
            const int at = atomicAdd(&work.counts[query + i % 2], 1);
            if (at < kList)
              work.lists[(int64_t{query} + i % 2) * kList + at] = first_row + 16 * m + g + i / 2 * 8;
          }
        __syncwarp();  // the next product wants the warp together
      }
    }
  }
}

// ---- bars and lists

// One block a query. k rows of the sample have similarities of at least the k-th highest sum, and so has the
// k-th of all. Clamped similarities at the bar may be in the result; those of -1 may be of any sum below.
__global__ void __launch_bounds__(kThreads)
    choose_bars(SeedSearch job, Plan made, int capacity, UnitQueries units, Workspace work) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  const int64_t b = blockIdx.x;  // the grid is padded
  if (b >= job.batch || units.is_idle(b)) {
    if (threadIdx.x == 0) work.bars[b] = NAN;
    return;
  }
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
  best.reset();
  const int64_t count = made.maxima;
  for (int64_t base = 0; base < count; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const float highest = i < count ? work.maxima[b * count + i] : -INFINITY;
    best.offer(highest > -FLT_MAX, highest, i);
  }
  best.cut();
  if (threadIdx.x != 0) return;
  const float reached = *best.size == job.k ? fminf(best.score[job.k - 1], 1.0f) : -INFINITY;
  const float wanted = job.min_score <= -1.0f ? -INFINITY : job.min_score;
  work.bars[b] = fmaxf(reached <= -1.0f ? -INFINITY : reached, wanted);
}

// One block a query: the candidates' similarities in the promised order, and the k first.
__global__ void __launch_bounds__(kThreads)
    rank_lists(SeedSearch job, Plan made, int capacity, UnitQueries units, Workspace work, float* scores,
               int64_t* slots) {
  extern __shared__ __align__(16) char memory[];
  __shared__ __align__(16) float unit[kMostDim];
  __shared__ int size[2];
  const int64_t b = blockIdx.x;
  const int count = work.counts[b];
  if (count > kList) {
    if (threadIdx.x == 0) work.again[atomicAdd(work.again_count, 1)] = static_cast<int>(b);
    return;
  }
  for (int d = threadIdx.x; d < units.pitch; d += kThreads) unit[d] = units.base[b * units.pitch + d];
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
  best.reset();
  for (int base = 0; base < count; base += kThreads) {
    const int i = base + static_cast<int>(threadIdx.x);
    float score = NAN;
    int64_t slot = -1;
    if (i < count) {
      slot = work.lists[b * kList + i];
      const float* row = job.vectors.at(slot);
      float sum = 0.0f;
      if (made.vectorizable) {
#pragma unroll 4
        for (int d = 0; d < job.dim; d += 4) {
          const float4 x = *reinterpret_cast<const float4*>(row + d);
          const float4 u = *reinterpret_cast<const float4*>(unit + d);
          sum = __fmaf_rn(u.x, x.x, sum);
          sum = __fmaf_rn(u.y, x.y, sum);
          sum = __fmaf_rn(u.z, x.z, sum);
          sum = __fmaf_rn(u.w, x.w, sum);
        }
      } else {
        for (int d = 0; d < job.dim; ++d) sum = __fmaf_rn(unit[d], row[d], sum);
      }
      score = __fmul_rn(sum, job.inv_norm[slot]);
    }
    best.offer(is_result(score, job.min_score), clamp_similarity(score), slot);
  }
  best.cut();
  for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
    const bool there = i < *best.size;
    scores[b * job.k + i] = there ? best.score[i] : 0.0f;
    slots[b * job.k + i] = there ? best.slot[i] : -1;
  }
}

template <int K, bool kSample>
int launch_sift(const SeedSearch& job, const Plan& made, const Workspace& work, cudaStream_t stream) {
  const size_t shared = 2 * sizeof(QueryTile<K>);
  const int error = cudaFuncSetAttribute(sift<K, kSample>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(shared));
  if (error != 0) return error;
  const int64_t blocks = kSample ? made.sampled * made.sample_splits : made.tiles * made.splits;
  sift<K, kSample><<<static_cast<unsigned>(blocks), kSiftThreads, shared, stream>>>(job, made, work);
  return cudaGetLastError();
}

template <int K>
int launch_sifts(const SeedSearch& job, const Plan& made, UnitQueries units, const Workspace& work,
                 cudaStream_t stream) {
  if (const int error = launch_sift<K, true>(job, made, work, stream); error != 0) return error;
  const int capacity = buffer_size(job.k);
  choose_bars<<<static_cast<unsigned>(made.query_tiles * kTile), kThreads, BlockTopK::bytes(capacity),
                stream>>>(job, made, capacity, units, work);
  return launch_sift<K, false>(job, made, work, stream);
}

// A chunk of the queries, all that `job` holds.
int search_chunk(const SeedSearch& job, UnitQueries units, const Workspace& work, float* scores,
                 int64_t* slots, cudaStream_t stream) {
  const Plan made = plan(job, job.batch);
  if (const int error = cudaMemsetAsync(work.again_count, 0, (2 + kMostTiles) * sizeof(int), stream);
      error != 0)
    return error;
  const int64_t padded = made.query_tiles * kTile;
  code_queries<<<static_cast<unsigned>(padded / (kThreads / kWarp)), kThreads, 0, stream>>>(
      units, job.batch, job.dim, 8 * made.steps, work);
  const int error = made.steps == 4   ? launch_sifts<4>(job, made, units, work, stream)
                    : made.steps == 8 ? launch_sifts<8>(job, made, units, work, stream)
                                      : launch_sifts<16>(job, made, units, work, stream);
  if (error != 0) return error;
  const int capacity = buffer_size(job.k);
  rank_lists<<<static_cast<unsigned>(job.batch), kThreads, BlockTopK::bytes(capacity), stream>>>(
      job, made, capacity, units, work, scores, slots);
  return cudaGetLastError();
}

}  // namespace

bool is_for_sieve(const SeedSearch& job) {
  return !job.exact && job.batch > kFewQueries && job.k <= kMostSieveK && job.dim <= kMostDim &&
         job.count >= AESG_SIEVE_LEAST_ROWS && job.count <= INT32_MAX - 1024;
}

int search_by_sieve(const SeedSearch& whole, UnitQueries units, Arena& arena, float* scores, int64_t* slots,
                    Stream opaque) {
  const auto stream = static_cast<cudaStream_t>(opaque);
  SeedSearch job = whole;
  const int64_t most = std::min(job.batch, kChunk);
  const Plan made = plan(job, most);
  const int64_t padded = made.query_tiles * kTile;
  Workspace work;
  work.inverse = arena.take<float>(job.inv_norm ? 0 : job.count);
  work.codes = arena.take<uint32_t>(padded * 8 * made.steps);
  work.bars = arena.take<float>(padded);
  work.maxima = arena.take<float>(padded * made.maxima);
  work.counts = arena.take<int>(padded);
  work.lists = arena.take<int>(most * kList);
  work.again = arena.take<int>(most);
  work.again_count = arena.take<int>(2 + kMostTiles);
  work.query_error = work.again_count + 1;
  work.asks = work.again_count + 2;
  const bool launches = work.codes != nullptr;
  if (launches && !job.inv_norm) {
    scale_rows<<<static_cast<unsigned>((job.count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        job, work.inverse);
  }
  if (!job.inv_norm) job.inv_norm = {work.inverse, job.count};
  const int64_t parts = std::min(kMostAgainParts, std::max<int64_t>(1, kMostAgainRanked / job.k));
  const Arena before = arena;
  for (int64_t first = 0; first < whole.batch; first += kChunk) {
    job.queries = whole.queries + first * job.dim;
    job.batch = std::min(kChunk, whole.batch - first);
    const UnitQueries of_chunk = units.from(first);
    float* const to_scores = scores + first * job.k;
    int64_t* const to_slots = slots + first * job.k;
    Arena left = before;
    if (launches) {
      const int error = search_chunk(job, of_chunk, work, to_scores, to_slots, stream);
      if (error != 0) return error;
    }
    const int error = search_exactly(job, of_chunk, {work.again, work.again_count}, parts, left, to_scores,
                                     to_slots, opaque);
    if (error != 0) return error;
    if (first == 0) arena = left;  // no later chunk is larger
    if (!launches) break;
  }
  return 0;
}

}  // namespace aesg::gpu
