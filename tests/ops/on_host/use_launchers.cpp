// As launchers.cpp, of what digests uses, and of consolidation.
#include "tests/ops/on_host/cuda_on_host.h"
#include "tests/ops/on_host/launchers.h"

using namespace on_host;

namespace {

struct Given {  // a column as the test passes it, strides in elements
  void* base;
  int64_t rows, row_stride, group_stride;  // group_stride 0: flat

  template <typename T>
  operator Column<T>() const {
    if (group_stride == 0) return {static_cast<T*>(base), rows, row_stride};
    return {static_cast<T*>(base), rows, row_stride, group_stride, kRowsPerGroup - 1, kGroupShift};
  }
};

}  // namespace

extern "C" {

int on_host_count_use(const Given* columns, const int64_t* members, const float* energies,
                      const int64_t* order, int64_t count, float gain) {
  return gpu::count_use({columns[0], columns[1], columns[2], members, energies, order, count, gain}, nullptr);
}

int on_host_coactivation_pairs(const int64_t* slots, int64_t rows, int64_t width, int64_t* pairs) {
  return gpu::coactivation_pairs({slots, rows, width}, pairs, nullptr);
}

int on_host_coactivate(const Given* c, const int64_t* pairs, int64_t count, float rate) {
  const Edges edges{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9]};
  return gpu::coactivate({edges, c[10], pairs, count, rate}, nullptr);
}

struct Faded {  // ConsolidateRules as the test passes them
  float relevance_decay;
  uint32_t min_age;
  float relevance_threshold;
  uint32_t frequency_threshold;
};

// columns: active, use_frequency, age, relevance.
int on_host_consolidate(const Given* columns, const Faded* rules, int64_t count, uint8_t* doomed) {
  return gpu::consolidate(
      {rules->relevance_decay, rules->min_age, rules->relevance_threshold, rules->frequency_threshold}, count,
      columns[0], columns[1], columns[2], columns[3], doomed, nullptr);
}

}  // extern "C"
