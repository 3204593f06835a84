// pool_novelty_ over kernels that run on the host, with a C face.
#include "tests/ops/on_host/launchers.h"

using namespace on_host;

extern "C" {

int on_host_pool(float* candidates, int32_t* counts, int64_t* stamps, int64_t* state, int64_t capacity,
                 int64_t dim, const float* inputs, int64_t count, float threshold, int32_t birth_count,
                 bool birth_first, const int64_t* living, uint8_t* born, float* born_vectors) {
  const gpu::PoolNovelty job{candidates, counts,    stamps,      state,       capacity, dim,  inputs,
                             count,      threshold, birth_count, birth_first, living,   born, born_vectors};
  return gpu::pool_novelty(job, workspace(gpu::pool_novelty_workspace(job)).data(), nullptr);
}

}  // extern "C"
