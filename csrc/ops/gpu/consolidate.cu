// consolidate_ on the device: one thread a concept, the arithmetic of consolidate_math.h.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 256;

__global__ void consolidate_kernel(ConsolidateRules rules, int64_t count, int64_t rows,
                                   Column<const uint8_t> active, Column<const uint32_t> use_frequency,
                                   Column<uint32_t> age, Column<float> relevance, uint8_t* doomed) {
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x; row < rows; row += step)
    doomed[row] = row < count
                      ? consolidate_one(rules, active[row], use_frequency[row], age[row], relevance[row])
                      : uint8_t{0};
}

}  // namespace

const char* error_text(int error) {
  cudaGetLastError();
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

int consolidate(const ConsolidateRules& rules, int64_t count, Column<const uint8_t> active,
                Column<const uint32_t> use_frequency, Column<uint32_t> age, Column<float> relevance,
                uint8_t* doomed, Stream stream) {
  if (age.rows == 0) return 0;
  const int64_t blocks = std::min<int64_t>((age.rows + kBlock - 1) / kBlock, kMostBlocks);
  consolidate_kernel<<<static_cast<unsigned>(blocks), kBlock, 0, static_cast<cudaStream_t>(stream)>>>(
      rules, count, age.rows, active, use_frequency, age, relevance, doomed);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
