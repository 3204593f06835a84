// seed_search on the device, in two stages. First, a block takes a part of the rows and a few queries: a tile
// of rows passes through shared memory, each thread adds up the similarities of one row in the order of the
// CPU kernel, and BlockTopK keeps the best. Second, one block a query merges the parts. Scores are never
// written out.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/top_k.cuh"

namespace aesg::gpu {
namespace {

constexpr int kColumns = 32;          // of a tile of kThreads rows
constexpr int kPitch = kColumns + 1;  // a column of the tile then lies in 32 different banks
constexpr int kMostQueries = 8;       // a block's queries share the tile; one when k needs a large buffer
constexpr int64_t kFewK = 64;
constexpr int64_t kLeastRows = 512;  // of a part
constexpr int64_t kEnoughBlocks = 1024;
constexpr int64_t kMostTiles = 65535;  // the y dimension of a grid ends there

struct Plan {
  int queries;    // a block
  int64_t parts;  // of the rows
  int64_t rows;   // of a part, a multiple of kThreads
  int capacity;   // of a buffer
  int64_t tiles;  // of queries
};

Plan plan(const SeedSearch& job) {
  Plan made;
  made.queries = job.k <= kFewK ? kMostQueries : 1;
  made.capacity = buffer_size(job.k);
  made.tiles = (job.batch + made.queries - 1) / made.queries;
  const int64_t most = std::max<int64_t>(1, (job.count + kLeastRows - 1) / kLeastRows);
  made.parts = std::clamp<int64_t>(kEnoughBlocks / std::max<int64_t>(1, made.tiles), 1, most);
  const int64_t rows = (job.count + made.parts - 1) / made.parts;
  made.rows = std::max<int64_t>(kThreads, (rows + kThreads - 1) / kThreads * kThreads);
  made.parts = std::max<int64_t>(1, (job.count + made.rows - 1) / made.rows);
  return made;
}

// Workspace: unit queries [B, D], then slots [parts, B, k], then scores [parts, B, k].
struct Workspace {
  float* unit;
  int64_t* slots;
  float* scores;
};

__host__ size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

Workspace split(const SeedSearch& job, const Plan& made, void* memory) {
  char* at = static_cast<char*>(memory);
  Workspace out;
  out.unit = reinterpret_cast<float*>(at);
  at += aligned(sizeof(float) * job.batch * job.dim);
  out.slots = reinterpret_cast<int64_t*>(at);
  at += aligned(sizeof(int64_t) * made.parts * job.batch * job.k);
  out.scores = reinterpret_cast<float*>(at);
  return out;
}

// One thread a query: the sum of squares in the order of the CPU.
__global__ void scale_queries(SeedSearch job, float* unit) {
  const int64_t b = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (b >= job.batch) return;
  const float* query = job.queries + b * job.dim;
  const float inverse = inverse_norm(sum_of_squares(query, job.dim));
  for (int64_t d = 0; d < job.dim; ++d) unit[b * job.dim + d] = __fmul_rn(query[d], inverse);
}

template <int Q>
__global__ void search_part(SeedSearch job, Plan made, Workspace work, int64_t first_tile) {
  extern __shared__ __align__(16) char memory[];
  __shared__ float tile[kThreads * kPitch];
  __shared__ float query_tile[Q][kColumns];
  __shared__ int sizes[Q][2];
  const int64_t first_query = (first_tile + blockIdx.y) * Q;
  const int64_t part = blockIdx.x, begin = part * made.rows;
  const int64_t end = begin + made.rows < job.count ? begin + made.rows : job.count;
  BlockTopK best[Q];
#pragma unroll
  for (int q = 0; q < Q; ++q) {
    best[q] = BlockTopK::at(memory + q * BlockTopK::bytes(made.capacity), sizes[q], made.capacity,
                            static_cast<int>(job.k));
    best[q].reset();
  }

  for (int64_t base = begin; base < end; base += kThreads) {
    const int64_t row = base + threadIdx.x;
    float sum[Q];
    double squares = 0;
#pragma unroll
    for (int q = 0; q < Q; ++q) sum[q] = 0;
    for (int64_t d0 = 0; d0 < job.dim; d0 += kColumns) {
      __syncthreads();
      // A warp reads one row's columns at a time: coalesced.
      for (int i = threadIdx.x; i < kThreads * kColumns; i += kThreads) {
        const int64_t r = base + i / kColumns, d = d0 + i % kColumns;
        tile[i / kColumns * kPitch + i % kColumns] = r < end && d < job.dim ? job.vectors.at(r)[d] : 0.0f;
      }
      for (int i = threadIdx.x; i < Q * kColumns; i += kThreads) {
        const int64_t b = first_query + i / kColumns, d = d0 + i % kColumns;
        query_tile[i / kColumns][i % kColumns] =
            b < job.batch && d < job.dim ? work.unit[b * job.dim + d] : 0.0f;
      }
      __syncthreads();
      const int width = static_cast<int>(job.dim - d0 < kColumns ? job.dim - d0 : kColumns);
      for (int d = 0; d < width; ++d) {
        const float x = tile[threadIdx.x * kPitch + d];
#pragma unroll
        for (int q = 0; q < Q; ++q) sum[q] = __fmaf_rn(query_tile[q][d], x, sum[q]);
        if (!job.inv_norm) squares = __dadd_rn(squares, __dmul_rn(x, x));
      }
    }
    const bool there = row < end && (!job.active || job.active[row]);
    const float scale = !there ? 0.0f : job.inv_norm ? job.inv_norm[row] : inverse_norm(squares);
#pragma unroll
    for (int q = 0; q < Q; ++q) {
      const float similarity = clamp_similarity(__fmul_rn(sum[q], scale));
      best[q].offer(there && first_query + q < job.batch && similarity >= job.min_score, similarity, row);
    }
  }

#pragma unroll
  for (int q = 0; q < Q; ++q) {
    best[q].cut();
    if (first_query + q >= job.batch) continue;
    const int64_t at = (part * job.batch + first_query + q) * job.k;
    for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
      const bool found = i < *best[q].size;
      work.scores[at + i] = found ? best[q].score[i] : 0.0f;
      work.slots[at + i] = found ? best[q].slot[i] : -1;
    }
  }
}

__global__ void merge_parts(SeedSearch job, Plan made, Workspace work, float* scores, int64_t* slots) {
  extern __shared__ __align__(16) char memory[];
  __shared__ int size[2];
  const int64_t b = blockIdx.x;
  BlockTopK best = BlockTopK::at(memory, size, made.capacity, static_cast<int>(job.k));
  best.reset();
  const int64_t all = made.parts * job.k;
  for (int64_t base = 0; base < all; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    const int64_t at = i < all ? (i / job.k * job.batch + b) * job.k + i % job.k : 0;
    const int64_t slot = i < all ? work.slots[at] : -1;
    best.offer(slot >= 0, slot >= 0 ? work.scores[at] : 0.0f, slot);
  }
  best.cut();
  for (int64_t i = threadIdx.x; i < job.k; i += kThreads) {
    const bool found = i < *best.size;
    scores[b * job.k + i] = found ? best.score[i] : 0.0f;
    slots[b * job.k + i] = found ? best.slot[i] : -1;
  }
}

}  // namespace

size_t seed_search_workspace(const SeedSearch& job) {
  const Plan made = plan(job);
  const size_t results = made.parts * job.batch * job.k;
  return aligned(sizeof(float) * job.batch * job.dim) + aligned(sizeof(int64_t) * results) +
         aligned(sizeof(float) * results);
}

int seed_search(const SeedSearch& job, void* workspace, float* scores, int64_t* slots, Stream opaque) {
  if (job.batch == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  const Plan made = plan(job);
  const Workspace work = split(job, made, workspace);
  const size_t buffer = BlockTopK::bytes(made.capacity);
  scale_queries<<<static_cast<unsigned>((job.batch + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      job, work.unit);
  for (int64_t tile = 0; tile < made.tiles; tile += kMostTiles) {
    const int64_t tiles = std::min(kMostTiles, made.tiles - tile);
    const dim3 grid(static_cast<unsigned>(made.parts), static_cast<unsigned>(tiles));
    if (made.queries == kMostQueries) {
      search_part<kMostQueries><<<grid, kThreads, kMostQueries * buffer, stream>>>(job, made, work, tile);
    } else {
      search_part<1><<<grid, kThreads, buffer, stream>>>(job, made, work, tile);
    }
  }
  merge_parts<<<static_cast<unsigned>(job.batch), kThreads, buffer, stream>>>(job, made, work, scores, slots);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
