// As launchers.cpp, of successions and of death.
#include "tests/ops/on_host/cuda_on_host.h"
#include "tests/ops/on_host/launchers.h"

using namespace on_host;

namespace {

struct Place {  // of a column as the test passes it, strides in elements; group_stride 0: flat
  void* base;
  int64_t rows, row_stride, group_stride;

  template <typename T>
  operator Column<T>() const {
    if (group_stride == 0) return {static_cast<T*>(base), rows, row_stride};
    return {static_cast<T*>(base), rows, row_stride, group_stride, kRowsPerGroup - 1, kGroupShift};
  }
};

Edges edges_at(const Place* p) { return {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]}; }

}  // namespace

extern "C" {

int on_host_follow(const Place* columns, int64_t* counters, const int64_t* previous, const int64_t* current,
                   const int64_t* order, int64_t count, float initial, float rate, float yield) {
  const Follow job{edges_at(columns),     columns[10], counters, previous, current, count,
                   {initial, rate, yield}};
  return gpu::follow(job, order, workspace(gpu::follow_workspace(job)).data(), nullptr);
}

int on_host_retire(const Place* columns, int64_t* counters, int64_t* died) {
  const Retire job{edges_at(columns), columns[10], counters, columns[11]};
  return gpu::retire(job, workspace(gpu::retire_workspace(job)).data(), died, nullptr);
}

}  // extern "C"
