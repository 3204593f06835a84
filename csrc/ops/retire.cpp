// retire_ as torch sees it: checks and registration. What it does is csrc/ops/retire_math.h.
#include "csrc/ops/device.h"
#include "csrc/ops/edge_args.h"
#include "csrc/ops/retire_math.h"

namespace aesg {
namespace {

// All checks, before any work, on every device.
Retire check(const EdgeTensors& given, const Tensor& active, const Tensor& counters, const Tensor& doomed) {
  Retire job{edges_of(given), column<uint8_t>(active, "active", 0),
             counters_of(counters, given.first_block, "first_block"),
             column<const uint8_t>(doomed, "doomed", 0)};
  const auto fits = [&](const Tensor& t, const char* name, int64_t rows) {
    expect_same_device(t, name, given.first_block, "first_block");
    expect(rows == job.edges.slots(), kMemoryError, name, ": expected ", job.edges.slots(),
           " rows as in first_block, got ", shape_of{t});
  };
  fits(active, "active", job.active.rows);
  fits(doomed, "doomed", job.doomed.rows);
  return job;
}

Tensor retire_cpu(const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                  const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                  const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                  const Tensor& sources, const Tensor& active, const Tensor& counters, const Tensor& doomed) {
  const Retire job = check(
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      active, counters, doomed);
  int64_t died = 0;
  for (int64_t slot = 0; slot < job.edges.slots(); ++slot) {
    if (!job.dies(slot)) continue;
    job.active[slot] = 0;
    ++died;
    const Chain chain = chain_of(job.edges, slot);
    if (chain.tail < 0) continue;
    release_chain(job.edges, slot, static_cast<int32_t>(job.counters[kFreeBlock]));
    job.counters[kFreeBlock] = chain.tail;
    job.counters[kEdgeCount] -= chain.edges;
  }
  job.counters[kActiveCount] -= died;
  Tensor out = make_tensor(first_block, {1}, ScalarType::Long);
  *static_cast<int64_t*>(out.data_ptr()) = died;
  return out;
}

#if defined(AESG_WITH_CUDA)
Tensor retire_cuda(const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                   const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                   const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                   const Tensor& sources, const Tensor& active, const Tensor& counters,
                   const Tensor& doomed) {
  const Retire job = check(
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      active, counters, doomed);
  const OnDevice device(first_block);
  Tensor died = make_tensor(first_block, {1}, ScalarType::Long);
  const Tensor workspace = make_workspace(first_block, gpu::retire_workspace(job));
  expect_launched(
      gpu::retire(job, workspace.data_ptr(), static_cast<int64_t*>(died.data_ptr()), device.stream),
      "retire_");
  return died;
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("retire_", TORCH_BOX(&aesg::retire_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("retire_", TORCH_BOX(&aesg::retire_cpu)); }
