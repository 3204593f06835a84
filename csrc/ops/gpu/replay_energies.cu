// replay_energies and its derivative on the device: one block a query. A seed's sums over K and D are made by
// one thread each, in the order of the CPU, and so are those of a dimension over the seeds: the same bits.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/replay_energies_math.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 128;

__global__ void replay_backward_kernel(ReplayEnergies job, float* out) {
  __shared__ float gradient[kBlock];  // g_s of kBlock seeds
  __shared__ float scale[kBlock];     // g_s i(v_s)
  __shared__ float of_query[2];       // i(q); sum of g_s cos_s
  const int64_t members = job.members, count = job.seed_count, dim = job.dim;

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    const float* query = job.queries + b * dim;
    const float* similarities = job.similarities + b * count;
    float* to = out + b * dim;
    for (int64_t d = threadIdx.x; d < dim; d += kBlock) to[d] = 0.0f;
    if (threadIdx.x == kBlock - 1) {  // the first threads have seeds to sum up
      of_query[0] = inverse_of(query, dim);
      of_query[1] = 0.0f;
    }
    for (int64_t first = 0; first < count; first += kBlock) {
      const int here = static_cast<int>(count - first < kBlock ? count - first : kBlock);
      if (static_cast<int>(threadIdx.x) < here) {
        const int64_t s = first + threadIdx.x;
        const bool there = job.seeds[b * count + s] >= 0;
        const float sum = there ? seed_gradient(job.gradients + b * members,
                                                job.jacobian + b * members * count + s, members, count)
                                : 0.0f;
        gradient[threadIdx.x] = sum;
        scale[threadIdx.x] =
            sum != 0.0f ? sum * inverse_of(job.seed_vectors + (b * count + s) * dim, dim) : 0.0f;
      }
      __syncthreads();
      const float* rows = job.seed_vectors + (b * count + first) * dim;
      for (int64_t d = threadIdx.x; d < dim; d += kBlock) {
        float sum = to[d];
        for (int s = 0; s < here; ++s)
          if (gradient[s] != 0.0f) sum = add_product(sum, scale[s], rows[s * dim + d]);
        to[d] = sum;
      }
      if (threadIdx.x == 0)
        for (int s = 0; s < here; ++s)
          if (gradient[s] != 0.0f)
            of_query[1] = add_product(of_query[1], gradient[s], similarities[first + s]);
      __syncthreads();
    }
    __syncthreads();  // without seeds the first one
    const float inverse = of_query[0], along = of_query[1] * inverse;
    for (int64_t d = threadIdx.x; d < dim; d += kBlock) to[d] = across(to[d], along, query[d], inverse);
    __syncthreads();  // what is shared is read no more
  }
}

}  // namespace

int replay_energies(const float* energies, int64_t count, float* out, Stream stream) {
  if (count == 0) return 0;
  return cudaMemcpyAsync(out, energies, sizeof(float) * count, cudaMemcpyDeviceToDevice,
                         static_cast<cudaStream_t>(stream));
}

int replay_energies_backward(const ReplayEnergies& job, float* out, Stream stream) {
  if (job.batch == 0 || job.dim == 0) return 0;
  const auto blocks = static_cast<unsigned>(std::min(job.batch, kMostBlocks));
  replay_backward_kernel<<<blocks, kBlock, 0, static_cast<cudaStream_t>(stream)>>>(job, out);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
