// project_out and project_out_inv_norm_ as torch sees them: checks, threads, registration.
#include <algorithm>

#include "csrc/ops/device.h"
#include "csrc/ops/project_out_math.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kGrain = 256;  // rows a thread at least

// What both take, contiguous.
struct Rows {
  Tensor vectors, direction;
  const float* values;
  const double* u;
  int64_t count, dim;
};

Rows check(const Tensor& vectors, const Tensor& direction) {
  expect_dense<float>(vectors, "vectors", 2, "[n, D]");
  expect_dense<double>(direction, "direction", 1, "[D]");
  expect_same_device(direction, "direction", vectors, "vectors");
  expect(direction.size(0) == vectors.size(1), kMemoryError, "direction: expected ", vectors.size(1),
         " values as in a row of vectors, got ", shape_of{direction});
  Rows made{dense(vectors), dense(direction), nullptr, nullptr, vectors.size(0), vectors.size(1)};
  made.values = static_cast<const float*>(made.vectors.data_ptr());
  made.u = static_cast<const double*>(made.direction.data_ptr());
  return made;
}

Tensor project_out_cpu(const Tensor& vectors, const Tensor& direction) {
  const Rows rows = check(vectors, direction);
  const double* u = rows.u;
  const int64_t dim = rows.dim;
  Tensor out = make_tensor(vectors, {rows.count, dim}, ScalarType::Float);
  auto* rests = static_cast<float*>(out.data_ptr());
  torch::stable::parallel_for(0, rows.count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* from = rows.values + i * dim;
      float* to = rests + i * dim;
      const Along whole = along(u, from, dim);
      if (nothing_left(rest_square(u, from, dim, whole.part), whole.square))
        std::fill_n(to, dim, 0.0f);
      else
        for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<float>(rest_of(from[d], whole.part, u[d]));
    }
  });
  return out;
}

struct Lengths {
  Rows rows;
  Tensor slots;  // contiguous
  ProjectOutInvNorm job;
};

Lengths check(const Tensor& inv_norm, const Tensor& vectors, const Tensor& slots, const Tensor& direction) {
  const Rows rows = check(vectors, direction);
  expect_dense<int64_t>(slots, "slots", 1, "[n]");
  expect_same_device(slots, "slots", vectors, "vectors");
  expect_same_device(inv_norm, "inv_norm", vectors, "vectors");
  expect(slots.size(0) == rows.count, kMemoryError, "slots: expected ", rows.count,
         " values as rows in vectors, got ", shape_of{slots});
  Lengths made{rows, dense(slots), {}};
  made.job = {rows.values, static_cast<const int64_t*>(made.slots.data_ptr()),
              rows.u,      rows.count,
              rows.dim,    column<float>(inv_norm, "inv_norm", 0)};
  return made;
}

void project_out_inv_norm_cpu(const Tensor& inv_norm, const Tensor& vectors, const Tensor& slots,
                              const Tensor& direction) {
  const Lengths lengths = check(inv_norm, vectors, slots, direction);
  const ProjectOutInvNorm& job = lengths.job;
  for (int64_t i = 0; i < job.count; ++i) {
    const int64_t slot = job.slots[i];
    if (slot < 0 || slot >= job.inv_norm.rows) continue;
    const float* vector = job.vectors + i * job.dim;
    const Along whole = along(job.direction, vector, job.dim);
    job.inv_norm[slot] = inverse_rest(rest_square(job.direction, vector, job.dim, whole.part), whole.square);
  }
}

#if defined(AESG_WITH_CUDA)
Tensor project_out_cuda(const Tensor& vectors, const Tensor& direction) {
  const Rows rows = check(vectors, direction);
  const OnDevice device(vectors);
  Tensor out = make_tensor(vectors, {rows.count, rows.dim}, ScalarType::Float);
  const ProjectOut job{rows.values, rows.u, rows.count, rows.dim, static_cast<float*>(out.data_ptr())};
  expect_launched(gpu::project_out(job, device.stream), "project_out");
  return out;
}

void project_out_inv_norm_cuda(const Tensor& inv_norm, const Tensor& vectors, const Tensor& slots,
                               const Tensor& direction) {
  const Lengths lengths = check(inv_norm, vectors, slots, direction);
  const OnDevice device(vectors);
  expect_launched(gpu::project_out_inv_norm(lengths.job, device.stream), "project_out_inv_norm_");
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("project_out", TORCH_BOX(&aesg::project_out_cuda));
  m.impl("project_out_inv_norm_", TORCH_BOX(&aesg::project_out_inv_norm_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("project_out", TORCH_BOX(&aesg::project_out_cpu));
  m.impl("project_out_inv_norm_", TORCH_BOX(&aesg::project_out_inv_norm_cpu));
}
