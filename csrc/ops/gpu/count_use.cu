// count_use_ on the device. The uses come in order of their slots, those of one slot in their own order. A
// warp looks at a tile of 32 of them: a lane each takes the runs that end there, one after the other; a run
// that goes on, the warp takes together. The lanes load ahead and see whether any use of a chunk changes the
// relevance at all: that of a much used concept rests after some hundred uses. If one does, the chunk is gone
// through in order.
#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kWarps = 8;
constexpr int kLanes = 32;
constexpr int kEach = 8;  // uses a lane loads ahead
constexpr int kChunk = kEach * kLanes;

// The uses of a chunk that are this lane's. No branch waits for what was loaded, so all of them are under way
// at once. Whether a slot lives is for the caller to know.
__device__ void load_ahead(const CountUse& job, int64_t begin, Used (&ahead)[kEach]) {
  int64_t places[kEach];
  for (int k = 0; k < kEach; ++k) {
    const int64_t at = begin + k * kLanes + threadIdx.x % kLanes;
    const int64_t place = job.order[at < job.count ? at : job.count - 1];
    places[k] = at < job.count && place < job.count ? place : -1;
  }
  for (int k = 0; k < kEach; ++k) {
    const int64_t place = places[k] < 0 ? 0 : places[k], slot = job.members[place];
    ahead[k] = {places[k] < 0 ? -1 : slot, job.energies[place]};
  }
}

// The run of living `slot` that starts at `begin`, by all lanes. energies: [kChunk], shared by them.
__device__ void take_long_run(const CountUse& job, int64_t slot, int64_t begin, float* energies) {
  const int lane = threadIdx.x % kLanes;
  float relevance = job.relevance[slot];
  uint32_t uses = 0;
  Used ahead[kEach];
  load_ahead(job, begin, ahead);
  for (bool goes_on = true; goes_on; begin += kChunk) {
    float own = 0.0f;  // uses of this run
    bool changes = false;
    for (int k = 0; k < kEach; ++k) {
      energies[k * kLanes + lane] = ahead[k].energy;
      if (ahead[k].slot != slot) continue;
      own += 1.0f;
      const float after = relevance_after_use(relevance, job.gain, ahead[k].energy);
      changes |= __float_as_int(after) != __float_as_int(relevance);
    }
    load_ahead(job, begin + kChunk, ahead);
    goes_on = !__any_sync(~0u, own != kEach);
    if (!goes_on)
      for (int apart = kLanes / 2; apart > 0; apart /= 2) own += __shfl_xor_sync(~0u, own, apart, kLanes);
    const int count = goes_on ? kChunk : static_cast<int>(own);
    uses += count;
    changes = __any_sync(~0u, changes);
    __syncwarp();
    if (changes)
      for (int i = 0; i < count; ++i) relevance = relevance_after_use(relevance, job.gain, energies[i]);
    __syncwarp();  // all have read what is overwritten next
  }
  if (lane != 0) return;
  job.relevance[slot] = relevance;
  job.use_frequency[slot] += uses;
}

__global__ void __launch_bounds__(kWarps* kLanes) count_use_kernel(CountUse job) {
  __shared__ int64_t slots_of[kWarps][kLanes + 2];  // of the tile, and of the uses before and behind it
  __shared__ float energies_of[kWarps][kChunk];
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + warp) * kLanes;
  if (first >= job.count) return;
  int64_t* slots = slots_of[warp] + 1;
  float* energies = energies_of[warp];

  const Used use = use_at(job, first + lane);
  slots[lane] = use.slot;
  energies[lane] = use.energy;
  if (lane == 0) slots[-1] = use_at(job, first - 1).slot;
  if (lane == 1) slots[kLanes] = use_at(job, first + kLanes).slot;
  __syncwarp();

  const int64_t last = slots[kLanes - 1];
  const bool goes_on = last >= 0 && slots[kLanes] == last;
  if (use.slot >= 0 && slots[lane - 1] != use.slot && !(goes_on && use.slot == last)) {
    float relevance = job.relevance[use.slot];
    int end = lane;
    for (; end < kLanes && slots[end] == use.slot; ++end)
      relevance = relevance_after_use(relevance, job.gain, energies[end]);
    job.relevance[use.slot] = relevance;
    job.use_frequency[use.slot] += end - lane;
  }
  if (!goes_on || slots[-1] == last) return;  // the run of a tile that lies wholly in it began before
  int begin = kLanes - 1;
#pragma unroll 1
  while (begin > 0 && slots[begin - 1] == last) --begin;
  __syncwarp();  // the lanes are done with the energies
  take_long_run(job, last, first + begin, energies);
}

}  // namespace

int count_use(const CountUse& job, Stream stream) {
  if (job.count == 0 || job.active.rows == 0) return 0;
  if (job.order == nullptr) return cudaErrorInvalidValue;
  const int64_t uses_a_block = kWarps * kLanes;
  const auto blocks = static_cast<unsigned>((job.count + uses_a_block - 1) / uses_a_block);
  count_use_kernel<<<blocks, kWarps * kLanes, 0, static_cast<cudaStream_t>(stream)>>>(job);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
