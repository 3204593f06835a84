// bear_ on the device. One block finds the slots, one block makes the edges, chunk by chunk in the order of
// the host, and then a warp a newborn fills its columns; only now does it live, so that it is nobody's
// neighbour before. The cost follows the births, not the rows given.
#include <algorithm>

#include "csrc/ops/bear_math.h"
#include "csrc/ops/gpu/block_sum.cuh"
#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kLinkers = 1024;  // threads of the block that makes edges, one an edge of the chunk
constexpr int kBlock = 128;
constexpr int kWarp = 32;
constexpr int64_t kMostFilling = std::min<int64_t>(kMostBlocks, 1 << 10);  // blocks that fill columns

// In the workspace: what a kernel tells the next.
enum Told { kBirths, kFirstId, kToldCount };

// One block: slots for the newborn, the list of free ones first.
__global__ void __launch_bounds__(kLinkers) find_slots(Bear job, int64_t* told) {
  __shared__ int64_t from_list;
  const int64_t wanted = job.wanted(), node_count = job.counters[kNodeCount];
  if (threadIdx.x == 0) {
    int64_t slot = job.counters[kFreeSlot], found = 0;
    while (found < wanted) {
      const int64_t next = next_free_slot(job, slot);
      if (next == kNotFree) break;
      job.slots[found++] = slot;
      job.edges.first_block[slot] = INT32_MIN;  // not free any more: a ring ends here
      slot = next;
    }
    job.counters[kFreeSlot] = next_free_slot(job, slot) == kNotFree ? -1 : slot;
    from_list = found;
  }
  __syncthreads();
  int64_t room = node_count < 0 ? 0 : job.edges.slots() - node_count;
  room = room < 0 ? 0 : room;
  const int64_t left = wanted - from_list, appended = left < room ? left : room,
                births = from_list + appended;
  for (int64_t row = threadIdx.x; row < births; row += kLinkers) {
    if (row >= from_list) job.slots[row] = node_count + row - from_list;
    job.edges.first_block[job.slots[row]] = -1;
  }
  if (threadIdx.x != 0) return;
  told[kBirths] = births;
  told[kFirstId] = job.counters[kNextId];
  job.counters[kNodeCount] += appended;
  job.counters[kActiveCount] += births;
  job.counters[kNextId] += births;
}

// What the threads of a chunk share.
struct Chunk {
  int32_t sources[kLinkers];  // of the thread's edge, -1: it has none
  int heads[kLinkers];        // by bucket of sources: one of the threads whose source is in it, -1: none
  int others[kLinkers];       // the next thread of the same bucket, -1: none
  int ranks[kLinkers];        // which of the source's new edges the thread's is
  int32_t fresh[kLinkers];    // the block that the thread's edge takes
  int32_t listed[kLinkers];   // blocks from the list of free ones
  int sums[kLinkers];
  bool passed[kLinkers];  // a later edge of the chunk takes a further block for the same source
  int64_t next;           // the block behind all that were handed out
  int from_list;
};

// One edge a thread, in the order of the threads, as append_edge would one after the other. Returns whether
// it was appended.
__device__ bool append_together(const Edges& edges, int64_t* counters, Chunk& chunk, int32_t source,
                                int32_t target, float weight, float confidence) {
  const int me = static_cast<int>(threadIdx.x);
  chunk.sources[me] = source;
  chunk.heads[me] = -1;
  chunk.passed[me] = false;
  __syncthreads();
  const bool there = source >= 0;
  const int bucket = source & (kLinkers - 1);
  if (there) chunk.others[me] = atomicExch(&chunk.heads[bucket], me);
  __syncthreads();

  // The place among the new edges of the source. In what order a bucket lists its threads does not matter.
  const int32_t head = there ? edges.first_block[source] : -1;
  const int free = there ? free_places(edges, source) : 0;
  int rank = 0;
  if (there) {
    for (int i = chunk.heads[bucket]; i >= 0; i = chunk.others[i])
      rank += i < me && chunk.sources[i] == source;
    chunk.ranks[me] = rank;
  }
  __syncthreads();

  // Who takes the block for it, and the block before that.
  const bool takes = there && takes_block(rank, free);
  int taker = -1, earlier = -1;
  if (there && rank >= free) {
    const int first = rank - (rank - free) % kBlockEdges;  // of the edges of that block
    for (int i = chunk.heads[bucket]; i >= 0; i = chunk.others[i]) {
      if (chunk.sources[i] != source) continue;
      if (chunk.ranks[i] == first) taker = i;
      if (first > free && chunk.ranks[i] == first - kBlockEdges) earlier = i;
    }
  }

  // Blocks in the order of the edges that take them, see hand_out_blocks.
  int wanted = 0;
  const int order = sum_before<kLinkers>(takes ? 1 : 0, chunk.sums, &wanted);
  if (me == 0) {
    const int found = static_cast<int>(take_listed_blocks(edges, counters, wanted, chunk.listed));
    chunk.from_list = found;
    chunk.next = counters[kBlockCount];
    const int64_t room = edges.blocks() > chunk.next ? edges.blocks() - chunk.next : 0;
    counters[kBlockCount] += wanted - found < room ? wanted - found : room;
  }
  __syncthreads();
  int32_t fresh = -1;
  if (takes) {
    const int64_t behind = chunk.next + order - chunk.from_list;
    fresh = order < chunk.from_list   ? chunk.listed[order]
            : edges.has_block(behind) ? static_cast<int32_t>(behind)
                                      : -1;
  }
  chunk.fresh[me] = fresh;
  __syncthreads();
  if (fresh >= 0) {
    clear_block(edges, fresh, earlier < 0 ? head : chunk.fresh[earlier]);
    edges.sources[fresh] = source;
    if (earlier >= 0) chunk.passed[earlier] = true;
  }
  const int32_t block = !there ? -1 : rank < free ? head : chunk.fresh[taker];
  const int index = rank < free ? kBlockEdges - free + rank : (rank - free) % kBlockEdges;
  __syncthreads();
  if (fresh >= 0 && !chunk.passed[me]) edges.first_block[source] = fresh;
  if (block >= 0) {
    edges.targets.at(block)[index] = target;
    edges.use_counts.at(block)[index] = 0;
    edges.tags.at(block)[index] =
        static_cast<uint8_t>(static_cast<uint8_t>(EdgeKind::kSimilarity) | storage::kEdgeUsedBit);
    set_edge(edges, {block, index}, weight, confidence);
    atomicAdd(&edges.counts[block], 1);
  }
  __syncthreads();
  return block >= 0;
}

// One block: all edges from the newborn, then all to them.
__global__ void __launch_bounds__(kLinkers) make_links(Bear job, const int64_t* told) {
  __shared__ Chunk chunk;
  const int64_t edges = told[kBirths] * job.links;
  int appended = 0;
  for (int back = 0; back < 2; ++back)
    for (int64_t first = 0; first < edges; first += kLinkers) {
      const int64_t at = first + threadIdx.x;
      const int64_t neighbor = at < edges ? job.neighbors[at] : -1;
      const bool there = is_neighbor(job, neighbor);
      const int32_t other = there ? static_cast<int32_t>(neighbor) : -1;
      const int32_t newborn = there ? static_cast<int32_t>(job.slots[at / job.links]) : -1;
      appended +=
          append_together(job.edges, job.counters, chunk, back ? other : newborn, back ? newborn : other,
                          there ? weight_of(job.cosines[at]) : 0.0f, job.confidence);
    }
  if (appended > 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(job.counters + kEdgeCount),
              static_cast<unsigned long long>(appended));
}

// A warp a newborn: its columns. The sum of squares is one thread's, in order, from values that all bring.
__global__ void fill_newborn(Bear job, const int64_t* told) {
  __shared__ float values[kBlock];
  const int lane = threadIdx.x % kWarp;
  const int64_t step = int64_t{gridDim.x} * (kBlock / kWarp), births = told[kBirths];
  for (int64_t row = int64_t{blockIdx.x} * (kBlock / kWarp) + threadIdx.x / kWarp; row < births;
       row += step) {
    const int64_t slot = job.slots[row];
    const float* from = job.packed + row * job.dim;
    float* to = job.nodes.vector.at(slot);
    double squares = 0;
    for (int64_t first = 0; first < job.dim; first += kWarp) {
      if (first + lane < job.dim) {
        values[threadIdx.x] = from[first + lane];
        to[first + lane] = values[threadIdx.x];
      }
      __syncwarp();
      if (lane == 0) {
        const int width = static_cast<int>(job.dim - first < kWarp ? job.dim - first : kWarp);
        for (int i = 0; i < width; ++i) squares = add_square(squares, values[threadIdx.x + i]);
      }
      __syncwarp();
    }
    if (lane != 0) continue;
    job.nodes.inv_norm[slot] = inverse_length(squares);
    fill_columns(job, slot, told[kFirstId] + row);
  }
}

}  // namespace

size_t bear_workspace(const Bear&) { return sizeof(int64_t) * kToldCount; }

int bear(const Bear& job, void* workspace, Stream opaque) {
  if (job.rows == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  auto* told = static_cast<int64_t*>(workspace);
  const int error = cudaMemsetAsync(job.slots, 0xff, sizeof(int64_t) * job.rows, stream);  // -1
  if (error != 0) return error;
  find_slots<<<1, kLinkers, 0, stream>>>(job, told);
  if (job.links > 0) make_links<<<1, kLinkers, 0, stream>>>(job, told);
  const int64_t warps = (job.rows + kBlock / kWarp - 1) / (kBlock / kWarp);
  fill_newborn<<<static_cast<unsigned>(std::min(warps, kMostFilling)), kBlock, 0, stream>>>(job, told);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
