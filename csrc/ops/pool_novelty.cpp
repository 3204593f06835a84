// pool_novelty_ as torch sees it: checks and registration. The kernel is csrc/ops/cpu/pool_novelty.cpp.
#include "csrc/ops/cpu/pool_novelty.h"

#include <tuple>

#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

// born bool [n] and the vectors born [n, D], zero where nothing was born.
std::tuple<Tensor, Tensor> pool_novelty_cpu(const Tensor& candidates, const Tensor& counts,
                                            const Tensor& stamps, const Tensor& state, const Tensor& inputs,
                                            double threshold, int64_t birth_count, bool birth_first) {
  expect_dense<float>(inputs, "inputs", 2, "[n, D]", kNavigationError);
  expect_dense<float>(candidates, "candidates", 2, "[P, D]");
  expect_dense<int32_t>(counts, "counts", 1, "[P]");
  expect_dense<int64_t>(stamps, "stamps", 1, "[P]");
  expect_dense<int64_t>(state, "state", 1, "[2]");
  const int64_t capacity = candidates.size(0), dim = candidates.size(1), n = inputs.size(0);
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
  const Tensor rows = dense(inputs);
  const auto* input = static_cast<const float*>(rows.data_ptr());
  expect(all_finite(input, n * dim), kNavigationError, "inputs: expected finite values, got NaN or infinity");

  const cpu::NoveltyPool pool{static_cast<float*>(candidates.data_ptr()),
                              static_cast<int32_t*>(counts.data_ptr()),
                              static_cast<int64_t*>(stamps.data_ptr()),
                              static_cast<int64_t*>(state.data_ptr()),
                              capacity,
                              dim};
  expect(pool.state[0] >= 0 && pool.state[0] <= capacity, kMemoryError, "state: expected a size in 0..",
         capacity, ", got ", pool.state[0]);
  Tensor born = make_tensor(inputs, {n}, ScalarType::Bool);
  Tensor vectors = make_tensor(inputs, {n, dim}, ScalarType::Float);
  cpu::pool_novelty(pool, {static_cast<float>(threshold), static_cast<int32_t>(birth_count), birth_first},
                    input, n, static_cast<uint8_t*>(born.data_ptr()),
                    static_cast<float*>(vectors.data_ptr()));
  return {born, vectors};
}

}  // namespace
}  // namespace aesg

STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("pool_novelty_", TORCH_BOX(&aesg::pool_novelty_cpu)); }
