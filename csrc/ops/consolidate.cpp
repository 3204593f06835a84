// consolidate_ as torch sees it: checks, threads, registration. The kernel is csrc/ops/cpu/consolidate.cpp.
#include "csrc/ops/cpu/consolidate.h"

#include <algorithm>

#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kRowsPerTask = 16 * kRowsPerGroup;  // some microseconds of work

// u8 mask of the shape of `age`: 1 where a concept should go. Nothing is deactivated here.
Tensor consolidate_cpu(const Tensor& age, const Tensor& relevance, const Tensor& use_frequency,
                       const Tensor& active, int64_t count, double relevance_decay, int64_t min_age,
                       double relevance_threshold, int64_t frequency_threshold) {
  const auto ages = column<uint32_t>(age, "age", 0);
  const auto relevances = column<float>(relevance, "relevance", 0);
  const auto uses = column<const uint32_t>(use_frequency, "use_frequency", 0);
  const auto actives = column<const uint8_t>(active, "active", 0);
  const auto same_rows = [&](const Tensor& t, const char* name) {
    expect_same_device(t, name, age, "age");
    expect(t.dim() == age.dim() && t.numel() == age.numel(), kMemoryError, name,
           ": expected the shape of age, ", shape_of{age}, ", got ", shape_of{t});
  };
  same_rows(relevance, "relevance");
  same_rows(use_frequency, "use_frequency");
  same_rows(active, "active");
  expect(count >= 0 && count <= ages.rows, kMemoryError, "count: expected 0..", ages.rows, ", got ", count);
  expect(relevance_decay >= 0 && relevance_decay <= 1, kMemoryError, "relevance_decay: expected 0..1, got ",
         relevance_decay);
  expect(min_age >= 0 && min_age <= UINT32_MAX, kMemoryError, "min_age: expected an integer >= 0, got ",
         min_age);
  expect(relevance_threshold == relevance_threshold, kMemoryError,
         "relevance_threshold: expected a number, got NaN");
  expect(frequency_threshold >= 0 && frequency_threshold <= UINT32_MAX, kMemoryError,
         "frequency_threshold: expected an integer >= 0, got ", frequency_threshold);
  const ConsolidateRules rules{static_cast<float>(relevance_decay), static_cast<uint32_t>(min_age),
                               static_cast<float>(relevance_threshold),
                               static_cast<uint32_t>(frequency_threshold)};

  Tensor doomed = age.dim() == 1 ? make_tensor(age, {age.size(0)}, ScalarType::Byte)
                                 : make_tensor(age, {age.size(0), age.size(1)}, ScalarType::Byte);
  auto* mask = static_cast<uint8_t*>(doomed.data_ptr());
  std::fill(mask + count, mask + ages.rows, uint8_t{0});
  const int64_t step = ages.flat() ? kRowsPerTask : kRowsPerGroup;  // a run stays inside its group
  const int64_t runs = (count + step - 1) / step;
  torch::stable::parallel_for(0, runs, kRowsPerTask / step, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin * step; row < std::min(end * step, count); row += step)
      cpu::consolidate_rows(rules, std::min(step, count - row), actives.at(row), uses.at(row), ages.at(row),
                            relevances.at(row), mask + row);
  });
  return doomed;
}

}  // namespace
}  // namespace aesg

STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("consolidate_", TORCH_BOX(&aesg::consolidate_cpu)); }
