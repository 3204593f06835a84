// pool_novelty_ as torch sees it: checks and registration. The kernel is csrc/ops/cpu/pool_novelty.cpp.
#include "csrc/ops/cpu/pool_novelty.h"

#include <tuple>

#include "csrc/ops/device.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

struct Arguments {
  Tensor inputs;  // contiguous
  cpu::NoveltyPool pool;
  cpu::NoveltyRules rules;
  int64_t count;
  const int64_t* living;  // or null
};

// Types and shapes, on every device.
Arguments check(const Tensor& candidates, const Tensor& counts, const Tensor& stamps, const Tensor& state,
                const Tensor& inputs, double threshold, int64_t birth_count, bool birth_first,
                const std::optional<Tensor>& living) {
  expect_dense<float>(inputs, "inputs", 2, "[n, D]", kNavigationError);
  expect_dense<float>(candidates, "candidates", 2, "[P, D]");
  expect_dense<int32_t>(counts, "counts", 1, "[P]");
  expect_dense<int64_t>(stamps, "stamps", 1, "[P]");
  expect_dense<int64_t>(state, "state", 1, "[2]");
  const int64_t capacity = candidates.size(0), dim = candidates.size(1);
  for (const Tensor* t : {&candidates, &counts, &stamps, &state}) {
    expect_same_device(*t, "pool", inputs, "inputs");
    expect(t->is_contiguous(), kMemoryError, "pool: expected contiguous tensors, got a view of shape ",
           shape_of{*t});
  }
  expect(capacity >= 1, kMemoryError, "candidates: expected P >= 1, got shape ", shape_of{candidates});
  expect(counts.size(0) == capacity && stamps.size(0) == capacity, kMemoryError, "counts, stamps: expected ",
         capacity, " rows as in candidates, got ", shape_of{counts}, " and ", shape_of{stamps});
  expect(state.size(0) == 2, kMemoryError, "state: expected 2 values, got ", shape_of{state});
  expect(inputs.size(1) == dim && dim >= 1, kNavigationError, "inputs: expected dimension ", dim, ", got ",
         shape_of{inputs});
  expect(birth_count >= 1 && birth_count <= INT32_MAX, kMemoryError,
         "birth_count: expected an integer >= 1, got ", birth_count);
  expect(threshold == threshold, kMemoryError, "threshold: expected a number, got NaN");
  if (living.has_value()) {
    expect_dense<int64_t>(*living, "living", 1, "[1]");
    expect_same_device(*living, "living", inputs, "inputs");
    expect(living->size(0) == 1, kMemoryError, "living: expected 1 value, got ", shape_of{*living});
  }
  return {dense(inputs),
          {static_cast<float*>(candidates.data_ptr()), static_cast<int32_t*>(counts.data_ptr()),
           static_cast<int64_t*>(stamps.data_ptr()), static_cast<int64_t*>(state.data_ptr()), capacity, dim},
          {static_cast<float>(threshold), static_cast<int32_t>(birth_count), birth_first},
          inputs.size(0),
          living.has_value() ? static_cast<const int64_t*>(living->data_ptr()) : nullptr};
}

// born bool [n] and the vectors born [n, D], zero where nothing was born.
std::tuple<Tensor, Tensor> pool_novelty_cpu(const Tensor& candidates, const Tensor& counts,
                                            const Tensor& stamps, const Tensor& state, const Tensor& inputs,
                                            double threshold, int64_t birth_count, bool birth_first,
                                            const std::optional<Tensor>& living) {
  Arguments arguments =
      check(candidates, counts, stamps, state, inputs, threshold, birth_count, birth_first, living);
  const cpu::NoveltyPool& pool = arguments.pool;
  const int64_t n = arguments.count, dim = pool.dim;
  const auto* input = static_cast<const float*>(arguments.inputs.data_ptr());
  expect(all_finite(input, n * dim), kNavigationError, "inputs: expected finite values, got NaN or infinity");
  expect(pool.state[0] >= 0 && pool.state[0] <= pool.capacity, kMemoryError, "state: expected a size in 0..",
         pool.capacity, ", got ", pool.state[0]);
  if (arguments.living != nullptr && *arguments.living != 0) arguments.rules.birth_first = false;
  Tensor born = make_tensor(inputs, {n}, ScalarType::Bool);
  Tensor vectors = make_tensor(inputs, {n, dim}, ScalarType::Float);
  cpu::pool_novelty(pool, arguments.rules, input, n, static_cast<uint8_t*>(born.data_ptr()),
                    static_cast<float*>(vectors.data_ptr()));
  return {born, vectors};
}

#if defined(AESG_WITH_CUDA)
// Does not wait for the device: inputs that are not finite are left out, a size outside 0..P is taken as the
// nearest in it.
std::tuple<Tensor, Tensor> pool_novelty_cuda(const Tensor& candidates, const Tensor& counts,
                                             const Tensor& stamps, const Tensor& state, const Tensor& inputs,
                                             double threshold, int64_t birth_count, bool birth_first,
                                             const std::optional<Tensor>& living) {
  const Arguments arguments =
      check(candidates, counts, stamps, state, inputs, threshold, birth_count, birth_first, living);
  const cpu::NoveltyPool& pool = arguments.pool;
  const int64_t n = arguments.count;
  expect(pool.capacity <= INT32_MAX, kMemoryError, "candidates: expected at most ", INT32_MAX,
         " on a CUDA device, got ", pool.capacity);
  const OnDevice device(inputs);
  Tensor born = make_tensor(inputs, {n}, ScalarType::Bool);
  Tensor vectors = make_tensor(inputs, {n, pool.dim}, ScalarType::Float);
  const gpu::PoolNovelty job{pool.candidates,
                             pool.counts,
                             pool.stamps,
                             pool.state,
                             pool.capacity,
                             pool.dim,
                             static_cast<const float*>(arguments.inputs.data_ptr()),
                             n,
                             arguments.rules.threshold,
                             arguments.rules.birth_count,
                             arguments.rules.birth_first,
                             arguments.living,
                             static_cast<uint8_t*>(born.data_ptr()),
                             static_cast<float*>(vectors.data_ptr())};
  Tensor workspace = make_workspace(inputs, gpu::pool_novelty_workspace(job));
  expect_launched(gpu::pool_novelty(job, workspace.data_ptr(), device.stream), "pool_novelty_");
  return {born, vectors};
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("pool_novelty_", TORCH_BOX(&aesg::pool_novelty_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("pool_novelty_", TORCH_BOX(&aesg::pool_novelty_cpu)); }
