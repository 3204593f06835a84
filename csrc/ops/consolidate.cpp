// consolidate_ as torch sees it: checks, threads, registration. The kernel is csrc/ops/cpu/consolidate.cpp.
#include "csrc/ops/cpu/consolidate.h"

#include <algorithm>

#include "csrc/ops/device.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kRowsPerTask = 16 * kRowsPerGroup;  // some microseconds of work

struct Arguments {
  Column<uint32_t> age;
  Column<float> relevance;
  Column<const uint32_t> use_frequency;
  Column<const uint8_t> active;
  int64_t count;
  ConsolidateRules rules;
};

// All checks, before any work, on every device.
Arguments check(const Tensor& age, const Tensor& relevance, const Tensor& use_frequency, const Tensor& active,
                int64_t count, double relevance_decay, int64_t min_age, double relevance_threshold,
                int64_t frequency_threshold) {
  Arguments made{column<uint32_t>(age, "age", 0),
                 column<float>(relevance, "relevance", 0),
                 column<const uint32_t>(use_frequency, "use_frequency", 0),
                 column<const uint8_t>(active, "active", 0),
                 count,
                 {}};
  const auto same_rows = [&](const Tensor& t, const char* name) {
    expect_same_device(t, name, age, "age");
    expect(t.dim() == age.dim() && t.numel() == age.numel(), kMemoryError, name,
           ": expected the shape of age, ", shape_of{age}, ", got ", shape_of{t});
  };
  same_rows(relevance, "relevance");
  same_rows(use_frequency, "use_frequency");
  same_rows(active, "active");
  expect(count >= 0 && count <= made.age.rows, kMemoryError, "count: expected 0..", made.age.rows, ", got ",
         count);
  expect(relevance_decay >= 0 && relevance_decay <= 1, kMemoryError, "relevance_decay: expected 0..1, got ",
         relevance_decay);
  expect(min_age >= 0 && min_age <= UINT32_MAX, kMemoryError, "min_age: expected an integer >= 0, got ",
         min_age);
  expect(relevance_threshold == relevance_threshold, kMemoryError,
         "relevance_threshold: expected a number, got NaN");
  expect(frequency_threshold >= 0 && frequency_threshold <= UINT32_MAX, kMemoryError,
         "frequency_threshold: expected an integer >= 0, got ", frequency_threshold);
  made.rules = {static_cast<float>(relevance_decay), static_cast<uint32_t>(min_age),
                static_cast<float>(relevance_threshold), static_cast<uint32_t>(frequency_threshold)};
  return made;
}

Tensor make_mask(const Tensor& age) {
  return age.dim() == 1 ? make_tensor(age, {age.size(0)}, ScalarType::Byte)
                        : make_tensor(age, {age.size(0), age.size(1)}, ScalarType::Byte);
}

// u8 mask of the shape of `age`: 1 where a concept should go. Nothing is deactivated here.
Tensor consolidate_cpu(const Tensor& age, const Tensor& relevance, const Tensor& use_frequency,
                       const Tensor& active, int64_t count, double relevance_decay, int64_t min_age,
                       double relevance_threshold, int64_t frequency_threshold) {
  const Arguments a = check(age, relevance, use_frequency, active, count, relevance_decay, min_age,
                            relevance_threshold, frequency_threshold);
  Tensor doomed = make_mask(age);
  auto* mask = static_cast<uint8_t*>(doomed.data_ptr());
  std::fill(mask + count, mask + a.age.rows, uint8_t{0});
  // A run of rows stays inside its group, in every column.
  const bool flat = a.age.flat() && a.relevance.flat() && a.use_frequency.flat() && a.active.flat();
  const int64_t step = flat ? kRowsPerTask : kRowsPerGroup;
  const int64_t runs = (count + step - 1) / step;
  torch::stable::parallel_for(0, runs, kRowsPerTask / step, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * step; row < std::min(end * step, count); row += step)
      cpu::consolidate_rows(a.rules, std::min(step, count - row), a.active.at(row), a.use_frequency.at(row),
                            a.age.at(row), a.relevance.at(row), mask + row);
  });
  return doomed;
}

#if defined(AESG_WITH_CUDA)
Tensor consolidate_cuda(const Tensor& age, const Tensor& relevance, const Tensor& use_frequency,
                        const Tensor& active, int64_t count, double relevance_decay, int64_t min_age,
                        double relevance_threshold, int64_t frequency_threshold) {
  const Arguments a = check(age, relevance, use_frequency, active, count, relevance_decay, min_age,
                            relevance_threshold, frequency_threshold);
  const OnDevice device(age);
  Tensor doomed = make_mask(age);
  expect_launched(gpu::consolidate(a.rules, count, a.active, a.use_frequency, a.age, a.relevance,
                                   static_cast<uint8_t*>(doomed.data_ptr()), device.stream),
                  "consolidate_");
  return doomed;
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("consolidate_", TORCH_BOX(&aesg::consolidate_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("consolidate_", TORCH_BOX(&aesg::consolidate_cpu)); }
