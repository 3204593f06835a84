// follow_ on the device. Which events make an edge is known without going through them in order: the first of
// a pair whose edge does not exist. From then on every edge, old or new, goes through the events of its
// source by itself, in their order, so that its confidence has the bits of the plain loop. Sources meet only
// in the numbers of new blocks, which one block of threads hands out in the order of the events.
//
// An event's place is where it stands in `order`; a run are the places of one source.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kBlocksAtOnce = kWarp / kBlockEdges;  // of edges, one edge a lane

// What an event does to the edges of its source.
struct alignas(8) Step {
  int32_t target;  // -1: nothing
  float kept;      // of the confidence of other successors
};

struct Run {
  int32_t end;    // place behind the last
  int32_t head;   // of the chain before the call
  int32_t free;   // places in it
  int32_t fresh;  // new edges
};

// What lives in the workspace for the length of a call.
struct Workspace {
  int32_t* table;   // [slots of the table] an event of the pair that has this slot, -1: no pair
  int32_t* first;   // [slots of the table] n - 1 - the first event of that pair, -1: no pair
  int64_t slots;    // a power of two, at least 2 n
  int32_t* pairs;   // [n] by event: slot of the table, -1: no event
  uint8_t* fresh;   // [n] by event: it makes an edge
  uint8_t* takes;   // [n] by event: that edge takes a block
  int32_t* number;  // [n] by event: which of `blocks`
  int32_t* blocks;  // [n] handed out
  Step* steps;      // [n] by place; this and what follows: of living sources
  int32_t* starts;  // [n] by place: of its run
  int32_t* ranks;   // [n] by place: which new edge of its run, -1: none
  int32_t* takers;  // [n] by place: start of a run + i has the event that takes the run's i-th block
  Run* runs;        // [n] by place, at the start of each run
};

// Lays the parts out from `memory` on; returns how many bytes they take.
size_t lay_out(const Follow& job, char* memory, Workspace* work) {
  size_t used = 0;
  const auto take = [&](auto** part, int64_t count) {
    *part = reinterpret_cast<std::remove_reference_t<decltype(*part)>>(memory + used);
    used += (count * sizeof(**part) + 255) / 256 * 256;
  };
  work->slots = 64;  // `table` and `first` are emptied as one
  while (work->slots < 2 * job.count) work->slots *= 2;
  take(&work->table, work->slots);
  take(&work->first, work->slots);
  take(&work->pairs, job.count);
  take(&work->fresh, job.count);
  take(&work->takes, job.count);
  take(&work->number, job.count);
  take(&work->blocks, job.count);
  take(&work->steps, job.count);
  take(&work->starts, job.count);
  take(&work->ranks, job.count);
  take(&work->takers, job.count);
  take(&work->runs, job.count);
  return used;
}

__device__ uint64_t mix(uint64_t key) {  // the finaliser of MurmurHash3
  key = (key ^ key >> 33) * 0xff51afd7ed558ccdull;
  key = (key ^ key >> 33) * 0xc4ceb9fe1a85ec53ull;
  return key ^ key >> 33;
}

// A thread an event: finds the slot of its pair, and the first event there. Which slot depends on the order
// of the threads, the first event does not.
__global__ void find_pairs(Follow job, Workspace work) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= job.count) return;
  work.pairs[i] = -1;
  work.takes[i] = 0;
  work.number[i] = 0;
  if (!job.is_event(i)) return;
  const int64_t p = job.previous[i], c = job.current[i];
  int64_t slot = static_cast<int64_t>(mix(static_cast<uint64_t>(p) << 32 | static_cast<uint64_t>(c)));
  while (true) {
    slot &= work.slots - 1;
    const int held = atomicCAS(work.table + slot, -1, static_cast<int>(i));
    if (held < 0 || (job.previous[held] == p && job.current[held] == c)) break;
    ++slot;
  }
  atomicMax(work.first + slot, static_cast<int>(job.count - 1 - i));
  work.pairs[i] = static_cast<int32_t>(slot);
}

// A thread an event: does it make an edge?
__global__ void find_fresh(Follow job, Workspace work) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= job.count) return;
  const int32_t slot = work.pairs[i];
  const bool first = slot >= 0 && work.first[slot] == job.count - 1 - i;
  work.fresh[i] = first && !find_edge(job.edges, job.previous[i], job.current[i], EdgeKind::kSuccession);
}

// The event at a place, -1: none.
__device__ int64_t event_at(const Follow& job, const int64_t* order, int64_t place) {
  const int64_t event = place < job.count ? order[place] : -1;
  return event < job.count ? event : -1;
}

// A warp a place; that of a run's start numbers the run's new edges, 32 places at a time.
__global__ void number_edges(Follow job, const int64_t* order, Workspace work) {
  const int64_t start = int64_t{blockIdx.x} * (kBlock / kWarp) + threadIdx.x / kWarp;
  const unsigned lane = threadIdx.x % kWarp;
  if (start >= job.count) return;
  const int64_t leader = event_at(job, order, start);
  const int64_t before = start > 0 ? event_at(job, order, start - 1) : -1;
  if (leader < 0 || (before >= 0 && job.previous[before] == job.previous[leader])) return;
  const int64_t p = job.previous[leader];
  if (!job.alive(p)) return;  // of many streams nothing came before: a long run, of which nobody asks
  const int free = free_places(job.edges, p);

  int64_t end = start;
  int fresh = 0;
  while (true) {
    const int64_t place = end + lane, event = event_at(job, order, place);
    const bool ours = event >= 0 && job.previous[event] == p;
    const unsigned run = __ballot_sync(kAllLanes, ours);
    // Lanes behind a foreign one belong to another run, whatever the order says.
    const int length = run == kAllLanes ? kWarp : __ffs(~run) - 1;
    const bool makes = static_cast<int>(lane) < length && work.fresh[event] != 0;
    const unsigned makers = __ballot_sync(kAllLanes, makes);
    if (static_cast<int>(lane) < length) {
      const int rank = fresh + __popc(makers & ((1u << lane) - 1));
      const bool takes = makes && takes_block(rank, free);
      work.starts[place] = static_cast<int32_t>(start);
      work.ranks[place] = makes ? rank : -1;
      work.steps[place] = {work.pairs[event] >= 0 ? static_cast<int32_t>(job.current[event]) : -1,
                           job.kept(!makes)};
      if (takes) {
        work.takes[event] = 1;
        work.takers[start + (rank - free) / kBlockEdges] = static_cast<int32_t>(event);
      }
    }
    fresh += __popc(makers);
    end += length;
    if (length < kWarp) break;
  }
  if (lane == 0) work.runs[start] = {static_cast<int32_t>(end), job.edges.first_block[p], free, fresh};
}

// One block: counts what takes a block in the order of the events, then hands the blocks out, empty.
__global__ void hand_out(Follow job, Workspace work) {
  __shared__ int64_t takers[kBlock + 1];
  const int64_t each = (job.count + kBlock - 1) / kBlock;
  const int64_t begin = threadIdx.x * each, end = begin + each < job.count ? begin + each : job.count;
  int64_t taken = 0;
  for (int64_t i = begin; i < end; ++i) taken += work.takes[i];
  takers[threadIdx.x + 1] = taken;
  __syncthreads();
  if (threadIdx.x == 0) {
    takers[0] = 0;
    for (int i = 0; i < kBlock; ++i) takers[i + 1] += takers[i];
    hand_out_blocks(job.edges, job.counters, takers[kBlock], work.blocks);
  }
  __syncthreads();
  int64_t number = takers[threadIdx.x];
  for (int64_t i = begin; i < end; ++i)
    if (work.takes[i]) work.number[i] = static_cast<int32_t>(number++);
  for (int64_t i = threadIdx.x; i < takers[kBlock]; i += kBlock)
    if (job.edges.has_block(work.blocks[i])) clear_block(job.edges, work.blocks[i], -1);
}

// Goes through the steps of places [place, end) for one edge; returns how often it was strengthened. No
// branch waits for a step, so that several are on their way at once: there may be thousands.
__device__ uint32_t go_through(const Follow& job, const Step* steps, int64_t place, int64_t end,
                               int32_t target, float* confidence, bool* touched) {
  uint32_t uses = 0;
#pragma unroll 4
  for (; place < end; ++place) {
    const Step step = steps[place];
    const bool counts = step.target >= 0, taken = counts && step.target == target;
    const float grown = confidence_after_use(*confidence, job.rules.rate), kept = *confidence * step.kept;
    *confidence = taken ? grown : counts ? kept : *confidence;
    *touched |= counts;
    uses += taken;
  }
  return uses;
}

// A warp a place, a lane an edge that was there before: the warps of a run share its source's chain, four
// blocks at a time. So a source that was followed often has many at work.
__global__ void change_edges(Follow job, const int64_t* order, Workspace work) {
  const int64_t place = int64_t{blockIdx.x} * (kBlock / kWarp) + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t event = event_at(job, order, place);
  if (event < 0 || lane >= kBlocksAtOnce * kBlockEdges || !job.alive(job.previous[event])) return;
  const Edges& edges = job.edges;
  const int64_t start = work.starts[place];
  const Run run = work.runs[start];
  const int64_t first = (place - start) * kBlocksAtOnce + lane / kBlockEdges;
  const int64_t step = (run.end - start) * kBlocksAtOnce;
  const int index = lane % kBlockEdges;
  auto walk = edges.walk_from(run.head);
  for (int64_t next = first; walk.there(); walk.next()) {
    if (walk.place() != next) continue;
    next += step;
    const int32_t block = walk.block;
    if (index >= edges.count(block) || edges.kind(block, index) != EdgeKind::kSuccession) continue;
    float confidence = edges.confidences.at(block)[index];
    bool touched = false;
    const uint32_t uses =
        go_through(job, work.steps, start, run.end, edges.targets.at(block)[index], &confidence, &touched);
    if (!touched) continue;
    if (uses != 0) {
      edges.use_counts.at(block)[index] += uses;
      edges.tags.at(block)[index] |= storage::kEdgeUsedBit;
    }
    set_edge(edges, {block, index}, edges.weights.at(block)[index], confidence);
  }
}

// The i-th block that a run takes; outside 0..M-1: there is none left.
__device__ int32_t taken_block(const Workspace& work, int64_t start, int64_t i) {
  return work.blocks[work.number[work.takers[start + i]]];
}

// A thread a place: writes the new edge of that event, as it is after all events. Whoever takes a block also
// puts it into the chain.
__global__ void add_edges(Follow job, const int64_t* order, Workspace work) {
  const int64_t place = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const int64_t event = event_at(job, order, place);
  if (event < 0 || !job.alive(job.previous[event]) || work.ranks[place] < 0) return;
  const Edges& edges = job.edges;
  const int64_t p = job.previous[event], start = work.starts[place];
  const Run run = work.runs[start];
  const int rank = work.ranks[place], behind = rank - run.free;

  int32_t block = run.head;
  int index = kBlockEdges - run.free + rank, added = 0;
  if (behind >= 0) {
    const int number = behind / kBlockEdges;
    block = taken_block(work, start, number);
    index = behind % kBlockEdges;
    if (!edges.has_block(block)) return;
    if (index == 0) {
      const int left = run.fresh - rank;
      added = left < kBlockEdges ? left : kBlockEdges;
      edges.next_block[block] = number > 0 ? taken_block(work, start, number - 1) : run.head;
      edges.counts[block] = added;
      edges.sources[block] = static_cast<int32_t>(p);
      const bool last = left <= kBlockEdges || !edges.has_block(taken_block(work, start, number + 1));
      if (last) edges.first_block[p] = block;
    }
  } else if (rank == 0) {
    added = run.fresh < run.free ? run.fresh : run.free;
    edges.counts[block] = kBlockEdges - run.free + added;
  }
  if (added != 0)
    atomicAdd(reinterpret_cast<unsigned long long*>(job.counters + kEdgeCount),
              static_cast<unsigned long long>(added));

  const auto target = static_cast<int32_t>(job.current[event]);
  float confidence = job.rules.initial;
  bool touched = false;
  const uint32_t uses = go_through(job, work.steps, place + 1, run.end, target, &confidence, &touched);
  edges.targets.at(block)[index] = target;
  edges.use_counts.at(block)[index] = uses;
  edges.tags.at(block)[index] = static_cast<uint8_t>(EdgeKind::kSuccession) | storage::kEdgeUsedBit;
  set_edge(edges, {block, index}, 1.0f, confidence);
}

}  // namespace

size_t follow_workspace(const Follow& job) {
  Workspace work;
  return lay_out(job, nullptr, &work);
}

int follow(const Follow& job, const int64_t* order, void* workspace, Stream opaque) {
  if (job.count == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  Workspace work;
  lay_out(job, static_cast<char*>(workspace), &work);
  const int error = cudaMemsetAsync(work.table, 0xff, 2 * sizeof(int32_t) * work.slots, stream);
  if (error != 0) return error;
  const auto threads = static_cast<unsigned>((job.count + kBlock - 1) / kBlock);
  const auto warps = static_cast<unsigned>((job.count + kBlock / kWarp - 1) / (kBlock / kWarp));
  find_pairs<<<threads, kBlock, 0, stream>>>(job, work);
  find_fresh<<<threads, kBlock, 0, stream>>>(job, work);
  number_edges<<<warps, kBlock, 0, stream>>>(job, order, work);
  hand_out<<<1, kBlock, 0, stream>>>(job, work);
  change_edges<<<warps, kBlock, 0, stream>>>(job, order, work);
  add_edges<<<threads, kBlock, 0, stream>>>(job, order, work);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
