// seed_search on the device: brings the queries to length 1 and chooses how they are searched for.
#include <algorithm>

#include "csrc/ops/gpu/seed_search.cuh"

namespace aesg::gpu {
namespace {

constexpr int kWarp = 32;
constexpr int kBlock = 128;

// A warp a query: the sum of squares in the order of the CPU, by one thread, from values that all bring.
__global__ void scale_queries(SeedSearch job, float* units, int64_t pitch, uint8_t* idle) {
  __shared__ float values[kBlock];
  __shared__ float inverses[kBlock / kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t b = int64_t{blockIdx.x} * (kBlock / kWarp) + warp;
  if (b >= job.batch) return;
  const float* query = job.queries + b * job.dim;
  double sum = 0;
  for (int64_t first = 0; first < job.dim; first += kWarp) {
    values[threadIdx.x] = first + lane < job.dim ? query[first + lane] : 0.0f;
    __syncwarp();
    if (lane == 0) {
      const int width = static_cast<int>(job.dim - first < kWarp ? job.dim - first : kWarp);
      for (int i = 0; i < width; ++i) {
        const double value = values[threadIdx.x + i];
        sum = __dadd_rn(sum, __dmul_rn(value, value));
      }
    }
    __syncwarp();
  }
  if (lane == 0) {
    inverses[warp] = inverse_norm(sum);
    if (idle != nullptr) idle[b] = inverses[warp] == 0.0f;
  }
  __syncwarp();
  for (int64_t d = lane; d < pitch; d += kWarp)
    units[b * pitch + d] = d < job.dim ? __fmul_rn(query[d], inverses[warp]) : 0.0f;
}

// Lays out the workspace and, unless its base is null, launches.
int search(const SeedSearch& job, Arena& arena, float* scores, int64_t* slots, Stream opaque) {
  const int64_t pitch = UnitQueries::pitch_of(job.dim);
  float* base = arena.take<float>(job.batch * pitch);
  uint8_t* idle = job.min_score > 0.0f ? arena.take<uint8_t>(job.batch) : nullptr;
  const UnitQueries units{base, pitch, idle};
  const auto stream = static_cast<cudaStream_t>(opaque);
  if (base != nullptr) {
    const unsigned blocks = static_cast<unsigned>((job.batch + kBlock / kWarp - 1) / (kBlock / kWarp));
    scale_queries<<<blocks, kBlock, 0, stream>>>(job, base, pitch, idle);
    if (const int error = cudaGetLastError(); error != 0) return error;
  }
  if (is_for_sieve(job)) return search_by_sieve(job, units, arena, scores, slots, opaque);
  return search_exactly(job, units, {}, 0, arena, scores, slots, opaque);
}

}  // namespace

size_t seed_search_workspace(const SeedSearch& job) {
  Arena arena(nullptr);
  search(job, arena, nullptr, nullptr, nullptr);
  return arena.used();
}

int seed_search(const SeedSearch& job, void* workspace, float* scores, int64_t* slots, Stream stream) {
  if (job.batch == 0) return 0;
  Arena arena(workspace);
  return search(job, arena, scores, slots, stream);
}

}  // namespace aesg::gpu
