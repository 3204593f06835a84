// coactivate_ as torch sees it: checks and registration. What it does is csrc/ops/coactivate_math.h.
#include <algorithm>
#include <optional>
#include <vector>

#include "csrc/ops/coactivate_math.h"
#include "csrc/ops/device.h"
#include "csrc/ops/edge_args.h"

namespace aesg {
namespace {

constexpr int64_t kMostPairs = int64_t{1} << 33;  // 64 GiB

Primaries primaries_of(const Tensor& primaries) {
  expect_dense<int64_t>(primaries, "primaries", 2, "[R, W]");
  const int64_t rows = primaries.size(0), width = primaries.size(1);
  const bool few =
      rows == 0 || width == 0 || (width <= kMostPairs / rows && width <= kMostPairs / rows / width);
  expect(few, kMemoryError, "primaries: expected R * W * W up to ", kMostPairs, ", got ",
         shape_of{primaries});
  return {static_cast<const int64_t*>(primaries.data_ptr()), rows, width};
}

Tensor coactivation_pairs_cpu(const Tensor& given) {
  const Tensor dense_rows = dense(given);
  const Primaries primaries = primaries_of(dense_rows);
  Tensor pairs = make_tensor(given, {pair_count(primaries)}, ScalarType::Long);
  auto* out = static_cast<int64_t*>(pairs.data_ptr());
  for (int64_t n = 0; n < pair_count(primaries); ++n) out[n] = pair_at(primaries, n);
  return pairs;
}

// All checks, before any work, on every device. The pairs may be missing still.
Coactivate check(const EdgeTensors& edges, const Tensor& active, const Tensor& primaries,
                 const std::optional<Tensor>& pairs, double rate) {
  Coactivate job{edges_of(edges), column<const uint8_t>(active, "active", 0), nullptr, 0,
                 static_cast<float>(rate)};
  expect_same_device(active, "active", edges.first_block, "first_block");
  expect(job.active.rows == job.edges.slots(), kMemoryError, "active: expected ", job.edges.slots(),
         " rows as in first_block, got ", shape_of{active});
  primaries_of(primaries);
  expect_same_device(primaries, "primaries", edges.first_block, "first_block");
  expect(rate >= 0 && rate <= 1, kMemoryError, "rate: expected 0..1, got ", rate);
  if (pairs.has_value()) {
    expect_dense<int64_t>(*pairs, "pairs", 1, "[P]");
    expect(pairs->is_contiguous(), kMemoryError, "pairs: expected a contiguous tensor, got a strided view");
    expect_same_device(*pairs, "pairs", edges.first_block, "first_block");
    job.pairs = static_cast<const int64_t*>(pairs->data_ptr());
    job.count = pairs->numel();
  }
  return job;
}

void coactivate_cpu(const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                    const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                    const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                    const Tensor& sources, const Tensor& active, const Tensor& primaries,
                    const std::optional<Tensor>& pairs, double rate) {
  Coactivate job = check(
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      active, primaries, pairs, rate);
  std::vector<int64_t> made;
  if (!pairs.has_value()) {
    const Tensor dense_rows = dense(primaries);
    const Primaries rows = primaries_of(dense_rows);
    made.reserve(static_cast<size_t>(pair_count(rows)));
    for (int64_t n = 0; n < pair_count(rows); ++n)
      if (const int64_t pair = pair_at(rows, n); pair >= 0) made.push_back(pair);
    std::sort(made.begin(), made.end());
    job.pairs = made.data();
    job.count = static_cast<int64_t>(made.size());
  }
  for (int64_t first = 0; first < job.count; ++first) take_run(job, first);
}

#if defined(AESG_WITH_CUDA)
Tensor coactivation_pairs_cuda(const Tensor& given) {
  const OnDevice device(given);
  const Tensor dense_rows = dense(given);
  const Primaries primaries = primaries_of(dense_rows);
  Tensor pairs = make_tensor(given, {pair_count(primaries)}, ScalarType::Long);
  expect_launched(gpu::coactivation_pairs(primaries, static_cast<int64_t*>(pairs.data_ptr()), device.stream),
                  "coactivation_pairs");
  return pairs;
}

void coactivate_cuda(const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                     const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                     const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                     const Tensor& sources, const Tensor& active, const Tensor& primaries,
                     const std::optional<Tensor>& pairs, double rate) {
  const Coactivate job = check(
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      active, primaries, pairs, rate);
  expect(pairs.has_value(), kMemoryError, "pairs: expected some on a CUDA device, got none");
  const OnDevice device(first_block);
  expect_launched(gpu::coactivate(job, device.stream), "coactivate_");
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("coactivation_pairs", TORCH_BOX(&aesg::coactivation_pairs_cuda));
  m.impl("coactivate_", TORCH_BOX(&aesg::coactivate_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("coactivation_pairs", TORCH_BOX(&aesg::coactivation_pairs_cpu));
  m.impl("coactivate_", TORCH_BOX(&aesg::coactivate_cpu));
}
