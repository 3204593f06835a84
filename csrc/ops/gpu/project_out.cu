// project_out and project_out_inv_norm_ on the device: a warp a row. All lanes bring its values, one adds
// them up in their order.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;  // of a block
constexpr int kBlock = kWarps * kWarp;
static_assert(kWarp % kSums == 0, "the values that come together begin with the first sum");

// What the lanes of a warp share.
struct Shared {
  float values[kWarp];  // of a row, and of the direction
  double direction[kWarp];
  double sums[2][kSums];
  Along whole;
  double rest;  // squared
};

// Calls add(value, u) for the whole row: each of the first kSums threads with those of its sum, in order.
template <typename Add>
__device__ void each_in_order(const float* row, const double* direction, int64_t dim, Shared& shared,
                              Add add) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t first = 0; first < dim; first += kWarp) {
    if (first + lane < dim) {
      shared.values[lane] = row[first + lane];
      shared.direction[lane] = direction[first + lane];
    }
    __syncwarp();
    const int width = static_cast<int>(dim - first < kWarp ? dim - first : kWarp);
    if (lane < kSums)
      for (int i = lane; i < width; i += kSums) add(shared.values[i], shared.direction[i]);
    __syncwarp();
  }
}

// Fills in `whole` and `rest` of a row.
__device__ void measure(const float* row, const double* direction, int64_t dim, Shared& shared) {
  const int lane = threadIdx.x % kWarp;
  double part = 0, square = 0, rest = 0;
  each_in_order(row, direction, dim, shared, [&](float value, double u) {
    const double x = value;
    part += x * u;
    square += x * x;
  });
  if (lane < kSums) {
    shared.sums[0][lane] = part;
    shared.sums[1][lane] = square;
  }
  __syncwarp();
  if (lane == 0) shared.whole = {fold_sums(shared.sums[0]), fold_sums(shared.sums[1])};
  __syncwarp();
  const double along = shared.whole.part;
  each_in_order(row, direction, dim, shared, [&](float value, double u) {
    const double left = rest_of(value, along, u);
    rest += left * left;
  });
  if (lane < kSums) shared.sums[0][lane] = rest;
  __syncwarp();
  if (lane == 0) shared.rest = fold_sums(shared.sums[0]);
  __syncwarp();
}

__global__ void __launch_bounds__(kBlock) project_out_rows(ProjectOut job) {
  __shared__ Shared shared[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t row = int64_t{blockIdx.x} * kWarps + warp; row < job.count; row += step) {
    const float* from = job.vectors + row * job.dim;
    measure(from, job.direction, job.dim, shared[warp]);
    const double part = shared[warp].whole.part;
    const bool nothing = nothing_left(shared[warp].rest, shared[warp].whole.square);
    for (int64_t d = lane; d < job.dim; d += kWarp)
      job.rests[row * job.dim + d] =
          nothing ? 0.0f : static_cast<float>(rest_of(from[d], part, job.direction[d]));
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kBlock) write_inv_norms(ProjectOutInvNorm job) {
  __shared__ Shared shared[kWarps];
  const int warp = threadIdx.x / kWarp;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t row = int64_t{blockIdx.x} * kWarps + warp; row < job.count; row += step) {
    const int64_t slot = job.slots[row];
    if (slot < 0 || slot >= job.inv_norm.rows) continue;
    measure(job.vectors + row * job.dim, job.direction, job.dim, shared[warp]);
    if (threadIdx.x % kWarp == 0)
      job.inv_norm[slot] = inverse_rest(shared[warp].rest, shared[warp].whole.square);
    __syncwarp();
  }
}

unsigned blocks_for(int64_t rows) {
  return static_cast<unsigned>(std::min((rows + kWarps - 1) / kWarps, kMostBlocks));
}

}  // namespace

int project_out(const ProjectOut& job, Stream opaque) {
  if (job.count == 0 || job.dim == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  project_out_rows<<<blocks_for(job.count), kBlock, 0, stream>>>(job);
  return cudaGetLastError();
}

int project_out_inv_norm(const ProjectOutInvNorm& job, Stream opaque) {
  if (job.count == 0 || job.inv_norm.rows == 0) return 0;
  const auto stream = static_cast<cudaStream_t>(opaque);
  write_inv_norms<<<blocks_for(job.count), kBlock, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
