// keep_primary_ as torch sees it: checks and registration. What it does is csrc/ops/keep_primary_math.h.
#include "csrc/ops/device.h"
#include "csrc/ops/keep_primary_math.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

template <typename T>
T* written(const Tensor& t, const char* name, const Tensor& like) {
  expect_type<T>(t, name);
  expect_same_device(t, name, like, "slots");
  expect(t.dim() == 2 && t.size(0) == like.size(0) && t.size(1) == like.size(1), kMemoryError, name,
         ": expected the shape of slots, ", shape_of{like}, ", got ", shape_of{t});
  expect(t.is_contiguous(), kMemoryError, name, ": expected a contiguous tensor, got a strided view");
  return static_cast<T*>(t.data_ptr());
}

struct Arguments {
  Tensor members, energies;  // contiguous
  KeepPrimary job;
};

// All checks, before any work, on every device.
Arguments check(const Tensor& slots, const Tensor& slot_ids, const Tensor& slot_energies,
                const Tensor& members, const Tensor& energies, const Tensor& ids, int64_t steps) {
  expect(slots.dim() == 2, kMemoryError, "slots: expected shape [B, P], got ", shape_of{slots});
  expect_dense<int64_t>(members, "members", 2, "[B * steps, K]");
  expect_dense<float>(energies, "energies", 2, "[B * steps, K]");
  expect_same_device(members, "members", slots, "slots");
  expect_same_device(energies, "energies", slots, "slots");
  expect_same_device(ids, "ids", slots, "slots");
  expect(members.size(0) == energies.size(0) && members.size(1) == energies.size(1), kMemoryError,
         "energies: expected the shape of members, ", shape_of{members}, ", got ", shape_of{energies});
  expect(steps >= 1, kMemoryError, "steps: expected an integer >= 1, got ", steps);
  expect(members.size(0) % steps == 0 && members.size(0) / steps == slots.size(0), kMemoryError,
         "members: expected ", slots.size(0), " streams of ", steps, " rows, got ", members.size(0));
  Arguments made{dense(members), dense(energies), {}};
  made.job = {static_cast<const int64_t*>(made.members.data_ptr()),
              static_cast<const float*>(made.energies.data_ptr()),
              slots.size(0),
              steps,
              members.size(1),
              column<const int64_t>(ids, "ids", 0),
              slots.size(1),
              written<int64_t>(slots, "slots", slots),
              written<int64_t>(slot_ids, "slot_ids", slots),
              written<float>(slot_energies, "slot_energies", slots)};
  return made;
}

void keep_primary_cpu(const Tensor& slots, const Tensor& slot_ids, const Tensor& slot_energies,
                      const Tensor& members, const Tensor& energies, const Tensor& ids, int64_t steps) {
  const Arguments arguments = check(slots, slot_ids, slot_energies, members, energies, ids, steps);
  const KeepPrimary& job = arguments.job;
  for (int64_t place = 0; place < job.streams * job.kept; ++place) keep_one(job, place);
}

#if defined(AESG_WITH_CUDA)
void keep_primary_cuda(const Tensor& slots, const Tensor& slot_ids, const Tensor& slot_energies,
                       const Tensor& members, const Tensor& energies, const Tensor& ids, int64_t steps) {
  const Arguments arguments = check(slots, slot_ids, slot_energies, members, energies, ids, steps);
  const OnDevice device(slots);
  expect_launched(gpu::keep_primary(arguments.job, device.stream), "keep_primary_");
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("keep_primary_", TORCH_BOX(&aesg::keep_primary_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("keep_primary_", TORCH_BOX(&aesg::keep_primary_cpu)); }
