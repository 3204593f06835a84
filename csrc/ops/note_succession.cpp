// note_succession_ as torch sees it: checks and registration. What it does is
// csrc/ops/note_succession_math.h.
#include <optional>
#include <tuple>

#include "csrc/ops/device.h"
#include "csrc/ops/note_succession_math.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

// [B], a part of the streams perhaps.
int64_t* written(const Tensor& t, const char* name, const Tensor& like) {
  expect_dense<int64_t>(t, name, 1, "[B]");
  expect_same_device(t, name, like, "last_seed");
  expect(t.size(0) == like.size(0), kMemoryError, name, ": expected ", like.size(0),
         " streams as in last_seed, got ", t.size(0));
  expect(t.is_contiguous(), kMemoryError, name, ": expected a contiguous tensor, got a strided view");
  return static_cast<int64_t*>(t.data_ptr());
}

struct Arguments {
  Tensor seeds, similarities, born_slots;  // contiguous
  std::optional<Tensor> newborn;           // too
  NoteSuccession job;                      // but for what is returned
};

// All checks, before any work, on every device.
Arguments check(const Tensor& last_seed, const Tensor& last_id, const Tensor& seeds,
                const Tensor& similarities, const Tensor& born_slots, const Tensor& ids, const Tensor& active,
                double threshold, int64_t steps, const std::optional<Tensor>& newborn) {
  int64_t* const seed = written(last_seed, "last_seed", last_seed);
  int64_t* const id = written(last_id, "last_id", last_seed);
  expect_dense<int64_t>(seeds, "seeds", 2, "[B * steps, S]");
  expect_dense<float>(similarities, "similarities", 2, "[B * steps, S]");
  expect_dense<int64_t>(born_slots, "born_slots", 1, "[B * steps]");
  expect_same_device(seeds, "seeds", last_seed, "last_seed");
  expect_same_device(similarities, "similarities", last_seed, "last_seed");
  expect_same_device(born_slots, "born_slots", last_seed, "last_seed");
  expect_same_device(ids, "ids", last_seed, "last_seed");
  expect(steps >= 1, kMemoryError, "steps: expected an integer >= 1, got ", steps);
  const int64_t streams = last_seed.size(0), rows = seeds.size(0);
  expect(rows % steps == 0 && rows / steps == streams, kMemoryError, "seeds: expected ", streams,
         " streams of ", steps, " rows, got ", rows);
  expect(similarities.size(0) == rows && similarities.size(1) == seeds.size(1), kMemoryError,
         "similarities: expected the shape of seeds, ", shape_of{seeds}, ", got ", shape_of{similarities});
  expect(born_slots.size(0) == rows, kMemoryError, "born_slots: expected ", rows, " rows as in seeds, got ",
         born_slots.size(0));
  expect(threshold == threshold, kMemoryError, "threshold: expected a number, got NaN");
  if (newborn.has_value()) {
    expect_dense<int64_t>(*newborn, "newborn", 1, "[n]");
    expect_same_device(*newborn, "newborn", last_seed, "last_seed");
  }
  Arguments made{dense(seeds), dense(similarities), dense(born_slots), {}, {}};
  if (newborn.has_value()) made.newborn = dense(*newborn);
  const auto identities = column<const int64_t>(ids, "ids", 0);
  made.job = {static_cast<const int64_t*>(made.seeds.data_ptr()),
              static_cast<const float*>(made.similarities.data_ptr()),
              static_cast<const int64_t*>(made.born_slots.data_ptr()),
              streams,
              steps,
              seeds.size(1),
              made.newborn ? static_cast<const int64_t*>(made.newborn->data_ptr()) : nullptr,
              made.newborn ? made.newborn->size(0) : -1,
              identities,
              optional_column<const uint8_t>(active, "active", identities.rows, ids, "ids"),
              static_cast<float>(threshold),
              seed,
              id,
              nullptr,
              nullptr};
  return made;
}

// previous and current, i64 [B * steps]
std::tuple<Tensor, Tensor> make_results(Arguments& arguments) {
  const int64_t rows = arguments.job.streams * arguments.job.steps;
  Tensor previous = make_tensor(arguments.seeds, {rows}, ScalarType::Long);
  Tensor current = make_tensor(arguments.seeds, {rows}, ScalarType::Long);
  arguments.job.previous = static_cast<int64_t*>(previous.data_ptr());
  arguments.job.current = static_cast<int64_t*>(current.data_ptr());
  return {previous, current};
}

std::tuple<Tensor, Tensor> note_succession_cpu(const Tensor& last_seed, const Tensor& last_id,
                                               const Tensor& seeds, const Tensor& similarities,
                                               const Tensor& born_slots, const Tensor& ids,
                                               const Tensor& active, double threshold, int64_t steps,
                                               std::optional<Tensor> newborn) {
  Arguments arguments =
      check(last_seed, last_id, seeds, similarities, born_slots, ids, active, threshold, steps, newborn);
  auto results = make_results(arguments);
  const NoteSuccession& job = arguments.job;
  for (int64_t row = 0; row < job.streams * job.steps; ++row) note_succession_row(job, row);
  return results;
}

#if defined(AESG_WITH_CUDA)
std::tuple<Tensor, Tensor> note_succession_cuda(const Tensor& last_seed, const Tensor& last_id,
                                                const Tensor& seeds, const Tensor& similarities,
                                                const Tensor& born_slots, const Tensor& ids,
                                                const Tensor& active, double threshold, int64_t steps,
                                                std::optional<Tensor> newborn) {
  Arguments arguments =
      check(last_seed, last_id, seeds, similarities, born_slots, ids, active, threshold, steps, newborn);
  const OnDevice device(last_seed);
  auto results = make_results(arguments);
  expect_launched(gpu::note_succession(arguments.job, device.stream), "note_succession_");
  return results;
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("note_succession_", TORCH_BOX(&aesg::note_succession_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("note_succession_", TORCH_BOX(&aesg::note_succession_cpu)); }
