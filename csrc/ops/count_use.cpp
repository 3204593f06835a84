// count_use_ as torch sees it: checks, the loop of the CPU, registration.
#include <optional>

#include "csrc/ops/count_use_math.h"
#include "csrc/ops/device.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

struct Arguments {
  Tensor members, energies;  // contiguous
  CountUse job;
};

// All checks, before any work, on every device.
Arguments check(const Tensor& use_frequency, const Tensor& relevance, const Tensor& active,
                const Tensor& members, const Tensor& energies, const std::optional<Tensor>& order,
                double gain) {
  Arguments made{dense(members), dense(energies), {}};
  made.job = {column<uint32_t>(use_frequency, "use_frequency", 0),
              column<float>(relevance, "relevance", 0),
              column<const uint8_t>(active, "active", 0),
              nullptr,
              nullptr,
              nullptr,
              members.numel(),
              static_cast<float>(gain)};
  const auto same_rows = [&](const Tensor& t, const char* name, int64_t rows) {
    expect_same_device(t, name, use_frequency, "use_frequency");
    expect(rows == made.job.use_frequency.rows, kMemoryError, name, ": expected ",
           made.job.use_frequency.rows, " rows as in use_frequency, got ", shape_of{t});
  };
  same_rows(relevance, "relevance", made.job.relevance.rows);
  same_rows(active, "active", made.job.active.rows);
  expect_type<int64_t>(members, "members");
  expect_type<float>(energies, "energies");
  expect_same_device(members, "members", use_frequency, "use_frequency");
  expect_same_device(energies, "energies", use_frequency, "use_frequency");
  bool alike = members.dim() == energies.dim();
  for (int64_t i = 0; alike && i < members.dim(); ++i) alike = members.size(i) == energies.size(i);
  expect(alike, kMemoryError, "energies: expected the shape of members, ", shape_of{members}, ", got ",
         shape_of{energies});
  expect(gain >= 0 && gain <= 1, kMemoryError, "gain: expected 0..1, got ", gain);
  if (order.has_value()) {
    expect_dense<int64_t>(*order, "order", 1, "[n]");
    expect_same_device(*order, "order", use_frequency, "use_frequency");
    expect(order->numel() == made.job.count && order->is_contiguous(), kMemoryError, "order: expected ",
           made.job.count, " contiguous places, got shape ", shape_of{*order});
    made.job.order = static_cast<const int64_t*>(order->data_ptr());
  }
  made.job.members = static_cast<const int64_t*>(made.members.data_ptr());
  made.job.energies = static_cast<const float*>(made.energies.data_ptr());
  return made;
}

void count_use_cpu(const Tensor& use_frequency, const Tensor& relevance, const Tensor& active,
                   const Tensor& members, const Tensor& energies, const std::optional<Tensor>& order,
                   double gain) {
  const Arguments arguments = check(use_frequency, relevance, active, members, energies, order, gain);
  const CountUse& job = arguments.job;
  for (int64_t at = 0; at < job.count; ++at) {
    const Used use = use_at(job, at);
    if (use.slot < 0) continue;
    job.use_frequency[use.slot] += 1;
    float& kept = job.relevance[use.slot];
    kept = relevance_after_use(kept, job.gain, use.energy);
  }
}

#if defined(AESG_WITH_CUDA)
void count_use_cuda(const Tensor& use_frequency, const Tensor& relevance, const Tensor& active,
                    const Tensor& members, const Tensor& energies, const std::optional<Tensor>& order,
                    double gain) {
  const Arguments arguments = check(use_frequency, relevance, active, members, energies, order, gain);
  expect(order.has_value(), kMemoryError, "order: expected one on a CUDA device, got none");
  const OnDevice device(use_frequency);
  expect_launched(gpu::count_use(arguments.job, device.stream), "count_use_");
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("count_use_", TORCH_BOX(&aesg::count_use_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("count_use_", TORCH_BOX(&aesg::count_use_cpu)); }
