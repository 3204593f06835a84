// replay_energies as torch sees it: checks, threads, registration. Arithmetic:
// csrc/ops/replay_energies_math.h.
#include <algorithm>
#include <cstring>

#include "csrc/ops/device.h"
#include "csrc/ops/replay_energies_math.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

template <typename T>
const T* values_of(const Tensor& t) {
  return static_cast<const T*>(t.data_ptr());
}

// What both directions take: of B queries, K members, S seeds.
void check(const Tensor& queries, const Tensor& rows, const char* rows_name, const Tensor& seeds,
           const Tensor& similarities, const Tensor& jacobian, const Tensor& seed_vectors) {
  expect_dense<float>(queries, "queries", 2, "[B, D]", kNavigationError);
  expect_dense<float>(rows, rows_name, 2, "[B, K]", kNavigationError);
  expect_dense<int64_t>(seeds, "seeds", 2, "[B, S]", kNavigationError);
  const int64_t batch = queries.size(0), k = rows.size(1), count = seeds.size(1);
  expect_shape(rows, rows_name, {batch, k});
  expect_shape(seeds, "seeds", {batch, count});
  expect_shape(similarities, "similarities", {batch, count});
  expect_shape(jacobian, "jacobian", {batch, k, count});
  expect_shape(seed_vectors, "seed_vectors", {batch, count, queries.size(1)});
  for (const Tensor* t : {&similarities, &jacobian, &seed_vectors}) expect_type<float>(*t, "replay");
  for (const Tensor* t : {&rows, &seeds, &similarities, &jacobian, &seed_vectors})
    expect_same_device(*t, "replay", queries, "queries");
}

// The energies again, a tensor of their own.
Tensor replay_energies_cpu(const Tensor& queries, const Tensor& energies, const Tensor& seeds,
                           const Tensor& similarities, const Tensor& jacobian, const Tensor& seed_vectors) {
  check(queries, energies, "energies", seeds, similarities, jacobian, seed_vectors);
  const int64_t batch = energies.size(0), k = energies.size(1);
  Tensor out = make_tensor(energies, {batch, k}, ScalarType::Float);
  const Tensor from = dense(energies);
  std::memcpy(out.data_ptr(), from.data_ptr(), sizeof(float) * batch * k);
  return out;
}

// d loss / d queries [B, D] from d loss / d energies [B, K].
Tensor replay_energies_backward_cpu(const Tensor& gradients, const Tensor& queries, const Tensor& seeds,
                                    const Tensor& similarities, const Tensor& jacobian,
                                    const Tensor& seed_vectors) {
  check(queries, gradients, "gradients", seeds, similarities, jacobian, seed_vectors);
  const int64_t batch = queries.size(0), dim = queries.size(1), k = gradients.size(1), count = seeds.size(1);
  const Tensor gradient = dense(gradients), query = dense(queries), seed = dense(seeds),
               similarity = dense(similarities), slopes = dense(jacobian), rows = dense(seed_vectors);
  Tensor out = make_tensor(queries, {batch, dim}, ScalarType::Float);
  auto* to_all = static_cast<float*>(out.data_ptr());
  torch::stable::parallel_for(0, batch, 64, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float* g = values_of<float>(gradient) + b * k;
      const float* q = values_of<float>(query) + b * dim;
      float* to = to_all + b * dim;
      const float inverse_query = inverse_of(q, dim);
      float along = 0.0f;  // what goes against the query itself
      std::fill_n(to, dim, 0.0f);
      for (int64_t s = 0; s < count; ++s) {
        if (values_of<int64_t>(seed)[b * count + s] < 0) continue;
        const float sum = seed_gradient(g, values_of<float>(slopes) + b * k * count + s, k, count);
        if (sum == 0.0f) continue;
        const float* v = values_of<float>(rows) + (b * count + s) * dim;
        const float scale = sum * inverse_of(v, dim);
        for (int64_t d = 0; d < dim; ++d) to[d] = add_product(to[d], scale, v[d]);
        along = add_product(along, sum, values_of<float>(similarity)[b * count + s]);
      }
      along *= inverse_query;
      for (int64_t d = 0; d < dim; ++d) to[d] = across(to[d], along, q[d], inverse_query);
    }
  });
  return out;
}

#if defined(AESG_WITH_CUDA)
Tensor replay_energies_cuda(const Tensor& queries, const Tensor& energies, const Tensor& seeds,
                            const Tensor& similarities, const Tensor& jacobian, const Tensor& seed_vectors) {
  check(queries, energies, "energies", seeds, similarities, jacobian, seed_vectors);
  const int64_t batch = energies.size(0), k = energies.size(1);
  const OnDevice device(queries);
  const Tensor from = dense(energies);
  Tensor out = make_tensor(energies, {batch, k}, ScalarType::Float);
  expect_launched(gpu::replay_energies(values_of<float>(from), batch * k, static_cast<float*>(out.data_ptr()),
                                       device.stream),
                  "replay_energies");
  return out;
}

Tensor replay_energies_backward_cuda(const Tensor& gradients, const Tensor& queries, const Tensor& seeds,
                                     const Tensor& similarities, const Tensor& jacobian,
                                     const Tensor& seed_vectors) {
  check(queries, gradients, "gradients", seeds, similarities, jacobian, seed_vectors);
  const int64_t batch = queries.size(0), dim = queries.size(1);
  const OnDevice device(queries);
  const Tensor gradient = dense(gradients), query = dense(queries), seed = dense(seeds),
               similarity = dense(similarities), slopes = dense(jacobian), rows = dense(seed_vectors);
  Tensor out = make_tensor(queries, {batch, dim}, ScalarType::Float);
  const gpu::ReplayEnergies launch{values_of<float>(gradient),
                                   values_of<float>(query),
                                   values_of<int64_t>(seed),
                                   values_of<float>(similarity),
                                   values_of<float>(slopes),
                                   values_of<float>(rows),
                                   batch,
                                   dim,
                                   gradients.size(1),
                                   seeds.size(1)};
  expect_launched(gpu::replay_energies_backward(launch, static_cast<float*>(out.data_ptr()), device.stream),
                  "replay_energies_backward");
  return out;
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("replay_energies", TORCH_BOX(&aesg::replay_energies_cuda));
  m.impl("replay_energies_backward", TORCH_BOX(&aesg::replay_energies_backward_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("replay_energies", TORCH_BOX(&aesg::replay_energies_cpu));
  m.impl("replay_energies_backward", TORCH_BOX(&aesg::replay_energies_backward_cpu));
}
