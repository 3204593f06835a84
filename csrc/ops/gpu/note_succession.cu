// note_succession_ on the device: one thread a row.
#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 128;

__global__ void note_succession_kernel(NoteSuccession job) {
  const int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (row < job.streams * job.steps) note_succession_row(job, row);
}

}  // namespace

int note_succession(const NoteSuccession& job, Stream stream) {
  const int64_t rows = job.streams * job.steps;
  if (rows == 0) return 0;
  note_succession_kernel<<<static_cast<unsigned>((rows + kBlock - 1) / kBlock), kBlock, 0,
                           static_cast<cudaStream_t>(stream)>>>(job);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
