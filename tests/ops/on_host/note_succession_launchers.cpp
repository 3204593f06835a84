// note_succession_ over a kernel that runs on the host, with a C face.
#include "tests/ops/on_host/launchers.h"

using namespace on_host;

extern "C" {

// newborn_count: -1 without. group_strides: of ids and active, 0: flat columns.
int on_host_note_succession(int64_t* last_seed, int64_t* last_id, int64_t streams, int64_t steps,
                            const int64_t* seeds, const float* similarities, int64_t seed_count,
                            const int64_t* born_slots, const int64_t* newborn, int64_t newborn_count,
                            const int64_t* ids, int64_t ids_stride, const uint8_t* active,
                            int64_t active_stride, int64_t rows, float threshold, int64_t* previous,
                            int64_t* current) {
  const auto column = [rows](auto* base, int64_t group_stride) {
    using Values = Column<std::remove_pointer_t<decltype(base)>>;
    return group_stride == 0 ? Values{base, rows}
                             : Values{base, rows, 1, group_stride, kRowsPerGroup - 1, kGroupShift};
  };
  return gpu::note_succession({seeds, similarities, born_slots, streams, steps, seed_count, newborn,
                               newborn_count, column(ids, ids_stride), column(active, active_stride),
                               threshold, last_seed, last_id, previous, current},
                              nullptr);
}

}  // extern "C"
