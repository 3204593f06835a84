// The exact search, in two stages. First, a block takes a part of the rows and a few queries: tiles of rows
// pass through shared memory, several on their way at once, each thread adds up the similarities of one row
// in the order of the CPU kernel, and BlockTopK keeps the best. Second, one block a query ranks what the
// parts found. Scores are never written out. With few queries the rows are what is waited for: then some 96
// KiB of them are on their way to each multiprocessor at any time.
#include <algorithm>

#include "csrc/ops/gpu/async_copy.cuh"
#include "csrc/ops/gpu/seed_search.cuh"
#include "csrc/ops/gpu/top_k.cuh"

namespace aesg::gpu {
namespace {

constexpr int kColumns = 32;  // of a tile of kThreads rows
// Floats from row to row of a tile: an odd number of 16 bytes, so that eight threads that read 16 bytes each
// of eight rows meet in no bank.
constexpr int kPitch = kColumns + 4;
constexpr int kMostQueries = 8;  // a block's queries share the tile; one when k needs a large buffer
constexpr int64_t kFewK = 64;
constexpr int64_t kLeastRows = 512;          // of a part
constexpr int64_t kMostSearching = 1 << 20;  // blocks of a launch; they take turns
constexpr int kMergeThreads = 1024;          // of a block that ranks much
constexpr int64_t kMuch = 8 * kThreads;

// Tiles of which copies are on their way or that are worked on. Three with eight queries, whose results need
// room too: two blocks of 100 KiB would not fit on smaller devices.
template <int Q>
constexpr int kStages = Q == kMostQueries ? 3 : 4;

struct Plan {
  int queries;    // a block
  int64_t tiles;  // of queries
  int64_t parts;  // of the rows
  int64_t rows;   // of a part, a multiple of kThreads
  int capacity;   // of a buffer
  bool vectorizable;
};

Plan plan(const SeedSearch& job, int64_t parts) {
  Plan made;
  made.queries = 1;
  while (job.k <= kFewK && made.queries < std::min<int64_t>(job.batch, kMostQueries)) made.queries *= 2;
  made.capacity = buffer_size(job.k);
  made.tiles = (job.batch + made.queries - 1) / made.queries;
  made.vectorizable = is_vectorizable(job);
  const int64_t most = std::max<int64_t>(1, (job.count + kLeastRows - 1) / kLeastRows);
  const int64_t wanted = parts > 0 ? parts : kResidentBlocks / std::max<int64_t>(1, made.tiles);
  made.parts = std::clamp<int64_t>(wanted, 1, most);
  const int64_t rows = (job.count + made.parts - 1) / made.parts;
  made.rows = std::max<int64_t>(kThreads, (rows + kThreads - 1) / kThreads * kThreads);
  made.parts = std::max<int64_t>(1, (job.count + made.rows - 1) / made.rows);
  return made;
}

struct Found {
  int64_t* slots;  // [parts, B, k], of chosen queries by their place among these
  float* scores;
};

template <int Q>
struct Stage {
  float rows[kThreads][kPitch];
  float queries[Q][kColumns];
};

template <int Q>
size_t shared_bytes(int capacity) {
  return kStages<Q> * sizeof(Stage<Q>) + Q * BlockTopK::bytes(capacity);
}

// A step of the pipeline: kColumns dimensions, from `first` on, of kThreads rows, from `row` on.
struct Step {
  int64_t row, first;
  __device__ void advance(int64_t dim) {
    first += kColumns;
    if (first < dim) return;
    first = 0;
    row += kThreads;
  }
};

template <int Q>
__device__ void bring(const SeedSearch& job, const Plan& made, UnitQueries units, const int64_t* which,
                      Step step, int64_t end, Stage<Q>* stage) {
  const float* rows = job.vectors.at(step.row) + step.first;  // groups hold whole tiles
  const int width = static_cast<int>(job.dim - step.first < kColumns ? job.dim - step.first : kColumns);
  const int count = static_cast<int>(end - step.row < kThreads ? end - step.row : kThreads);
  constexpr int kParts = kColumns / 4;
  if (made.vectorizable) {
    const int column = threadIdx.x % kParts * 4;
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int r = threadIdx.x / kParts + i * (kThreads / kParts);
      if (r < count && column < width)
        copy_16(&stage->rows[r][column], rows + r * job.vectors.row_stride + column);
    }
  } else {
    const int column = threadIdx.x % kColumns;
    for (int r = threadIdx.x / kColumns; r < count; r += kThreads / kColumns)
      if (column < width) copy_4(&stage->rows[r][column], rows + r * job.vectors.row_stride + column);
  }
  if (threadIdx.x < Q * kParts) {
    const int q = threadIdx.x / kParts, column = threadIdx.x % kParts * 4;
    if (which[q] >= 0 && column < width)
      copy_16(&stage->queries[q][column], units.base + which[q] * units.pitch + step.first + column);
  }
}

// Goes on with the sums of one row, in the order of its dimensions.
template <int Q>
__device__ void add_up(const Stage<Q>& stage, int width, bool with_squares, float (&sum)[Q],
                       double* squares) {
  const float* row = stage.rows[threadIdx.x];
  const auto add_square = [&](double x) { *squares = __dadd_rn(*squares, __dmul_rn(x, x)); };
  const auto add_four = [&](int d) {
    const float4 x = *reinterpret_cast<const float4*>(row + d);
#pragma unroll
    for (int q = 0; q < Q; ++q) {
      const float4 u = *reinterpret_cast<const float4*>(&stage.queries[q][d]);
      sum[q] = __fmaf_rn(u.x, x.x, sum[q]);
      sum[q] = __fmaf_rn(u.y, x.y, sum[q]);
      sum[q] = __fmaf_rn(u.z, x.z, sum[q]);
      sum[q] = __fmaf_rn(u.w, x.w, sum[q]);
    }
    if (with_squares) {
      add_square(x.x);
      add_square(x.y);
      add_square(x.z);
      add_square(x.w);
    }
  };
  if (width == kColumns) {
#pragma unroll
    for (int d = 0; d < kColumns; d += 4) add_four(d);
  } else {
    int d = 0;
    for (; d + 4 <= width; d += 4) add_four(d);
    for (; d < width; ++d) {
#pragma unroll
      for (int q = 0; q < Q; ++q) sum[q] = __fmaf_rn(stage.queries[q][d], row[d], sum[q]);
      if (with_squares) add_square(row[d]);
    }
  }
}

// What a row is scaled by, and whether it counts.
struct RowState {
  float scale;
  bool there;

  __device__ static RowState of(const SeedSearch& job, int64_t row, int64_t end) {
    if (row >= end) return {0.0f, false};
    return {job.inv_norm ? job.inv_norm[row] : 0.0f, !job.active || job.active[row] != 0};
  }
};

template <int Q>
__global__ void __launch_bounds__(kThreads, 2)
    search_part(SeedSearch job, Plan made, UnitQueries units, Chosen chosen, Found found) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int sizes[Q][2];
  __shared__ int64_t which[Q];
  constexpr int kAhead = kStages<Q> - 1;
  auto* stages = reinterpret_cast<Stage<Q>*>(memory);
  char* buffers = memory + kStages<Q> * sizeof(Stage<Q>);
  BlockTopK best[Q];
#pragma unroll
  for (int q = 0; q < Q; ++q)
    best[q] = BlockTopK::at(buffers + q * BlockTopK::bytes(made.capacity), sizes[q], made.capacity,
                            static_cast<int>(job.k));
  const int64_t queries = chosen.count == nullptr ? job.batch : *chosen.count;
  const int64_t tiles = (queries + Q - 1) / Q;
  const int64_t steps_of_tile = (job.dim + kColumns - 1) / kColumns;

  // Blocks side by side read the same rows for other queries.
  for (int64_t item = blockIdx.x; item < tiles * made.parts; item += gridDim.x) {
    const int64_t first_query = item % tiles * Q, part = item / tiles, begin = part * made.rows;
    const int64_t end = begin + made.rows < job.count ? begin + made.rows : job.count;
    if (threadIdx.x < Q) {
      const int64_t place = first_query + threadIdx.x;
      const int64_t query = place >= queries ? -1 : chosen.which == nullptr ? place : chosen.which[place];
      which[threadIdx.x] = query >= 0 && units.is_idle(query) ? -1 : query;
    }
#pragma unroll
    for (int q = 0; q < Q; ++q) best[q].reset();
    bool any = false;  // nobody asks anything: the rows are not read
#pragma unroll
    for (int q = 0; q < Q; ++q) any |= which[q] >= 0;

    const int64_t steps = any ? (end - begin + kThreads - 1) / kThreads * steps_of_tile : 0;
    Step coming{begin, 0}, now{begin, 0};
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      if (s < steps) bring(job, made, units, which, coming, end, &stages[s]);
      coming.advance(job.dim);
      commit_copies();
    }
    RowState state = RowState::of(job, begin + threadIdx.x, end), next = state;
    float sum[Q];
    double squares = 0;
    int stage = 0, free_stage = kAhead;
    for (int64_t s = 0; s < steps; ++s, now.advance(job.dim)) {
      if (now.first == 0) {
        next = RowState::of(job, now.row + kThreads + threadIdx.x, end);  // long before it is wanted
        squares = 0;
#pragma unroll
        for (int q = 0; q < Q; ++q) sum[q] = 0;
      }
      wait_for_copies<kAhead - 1>();
      __syncthreads();  // this stage is there for all, and all are done with the one before it
      if (s + kAhead < steps) bring(job, made, units, which, coming, end, &stages[free_stage]);
      coming.advance(job.dim);
      commit_copies();
      const int64_t left = job.dim - now.first;
      add_up(stages[stage], static_cast<int>(left < kColumns ? left : kColumns), !job.inv_norm, sum,
             &squares);
      free_stage = stage;
      stage = stage + 1 == kStages<Q> ? 0 : stage + 1;
      if (left > kColumns) continue;

      const int64_t row = now.row + threadIdx.x;
      const float scale = job.inv_norm ? state.scale : inverse_norm(squares);
#pragma unroll
      for (int q = 0; q < Q; ++q) {
        const float score = __fmul_rn(sum[q], scale), clamped = clamp_similarity(score);
        const bool counts = state.there && which[q] >= 0 && is_result(score, job.min_score);
        if (__syncthreads_or(counts && best[q].takes(clamped, row))) best[q].offer(counts, clamped, row);
      }
      state = next;
    }

#pragma unroll
    for (int q = 0; q < Q; ++q) {
      if (any) best[q].cut();
      if (first_query + q >= queries) continue;
      const int64_t at = (part * job.batch + first_query + q) * job.k;
      for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
        const bool there = i < *best[q].size;
        found.scores[at + i] = there ? best[q].score[i] : 0.0f;
        found.slots[at + i] = there ? best[q].slot[i] : -1;
      }
    }
    __syncthreads();  // all have read what the next item changes
  }
}

__global__ void __launch_bounds__(kMergeThreads)
    merge_parts(SeedSearch job, int64_t parts, int capacity, UnitQueries units, Chosen chosen, Found found,
                float* scores, int64_t* slots) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  const int64_t queries = chosen.count == nullptr ? job.batch : *chosen.count;
  BlockTopK best = BlockTopK::at(memory, size, capacity, static_cast<int>(job.k));
  for (int64_t b = blockIdx.x; b < queries; b += gridDim.x) {
    const int64_t query = chosen.which == nullptr ? b : chosen.which[b], to = query * job.k;
    const int64_t all = units.is_idle(query) ? 0 : parts * job.k;
    best.reset();
    for (int64_t base = 0; base < all; base += blockDim.x) {
      const int64_t i = base + threadIdx.x;
      const int64_t at = i < all ? (i / job.k * job.batch + b) * job.k + i % job.k : 0;
      const int64_t slot = i < all ? found.slots[at] : -1;
      const float score = i < all ? found.scores[at] : 0.0f;
      best.offer(slot >= 0, score, slot);
    }
    if (all > 0) best.cut();
    for (int64_t i = threadIdx.x; i < job.k; i += blockDim.x) {
      const bool there = i < *best.size;
      scores[to + i] = there ? best.score[i] : 0.0f;
      slots[to + i] = there ? best.slot[i] : -1;
    }
    __syncthreads();  // all have read what the next query changes
  }
}

template <int Q>
int launch_parts(const SeedSearch& job, const Plan& made, UnitQueries units, Chosen chosen, Found found,
                 cudaStream_t stream) {
  // The most that any search wants: another thread may launch one between the two calls here.
  const size_t most = shared_bytes<Q>(buffer_size(Q == 1 ? kMostK : kFewK));
  const int error = cudaFuncSetAttribute(search_part<Q>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         static_cast<int>(most));
  if (error != 0) return error;
  const size_t shared = shared_bytes<Q>(made.capacity);
  const int64_t items = made.tiles * made.parts;
  const int64_t blocks =
      chosen.count == nullptr ? std::min(items, kMostSearching) : std::min(items, kResidentBlocks);
  search_part<Q>
      <<<static_cast<unsigned>(blocks), kThreads, shared, stream>>>(job, made, units, chosen, found);
  return cudaGetLastError();
}

}  // namespace

int search_exactly(const SeedSearch& job, UnitQueries units, Chosen chosen, int64_t parts, Arena& arena,
                   float* scores, int64_t* slots, Stream opaque) {
  const Plan made = plan(job, parts);
  const int64_t results = made.parts * job.batch * job.k;
  const Found found{arena.take<int64_t>(results), arena.take<float>(results)};
  if (found.slots == nullptr) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  const int error = made.queries == 8   ? launch_parts<8>(job, made, units, chosen, found, stream)
                    : made.queries == 4 ? launch_parts<4>(job, made, units, chosen, found, stream)
                    : made.queries == 2 ? launch_parts<2>(job, made, units, chosen, found, stream)
                                        : launch_parts<1>(job, made, units, chosen, found, stream);
  if (error != 0) return error;
  const int threads = made.parts * job.k > kMuch ? kMergeThreads : kThreads;
  const int capacity = buffer_size(job.k, threads);
  const int64_t blocks = std::min(job.batch, chosen.count == nullptr ? kMostSearching : kResidentBlocks);
  merge_parts<<<static_cast<unsigned>(blocks), threads, BlockTopK::bytes(capacity), stream>>>(
      job, made.parts, capacity, units, chosen, found, scores, slots);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
