// keep_primary_ on the device: one thread a place.
#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 128;

__global__ void keep_primary_kernel(KeepPrimary job) {
  const int64_t place = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (place < job.streams * job.kept) keep_one(job, place);
}

}  // namespace

int keep_primary(const KeepPrimary& job, Stream stream) {
  const int64_t places = job.streams * job.kept;
  if (places == 0) return 0;
  keep_primary_kernel<<<static_cast<unsigned>((places + kBlock - 1) / kBlock), kBlock, 0,
                        static_cast<cudaStream_t>(stream)>>>(job);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
