// As launchers.cpp, of births.
#include "tests/ops/on_host/cuda_on_host.h"
#include "tests/ops/on_host/launchers.h"

using namespace on_host;

namespace {

struct Strides {  // of a column: of rows and, where it is grouped, of groups
  int64_t row, group;
};

template <typename T>
Column<T> column_of(void* base, int64_t rows, Strides strides) {
  if (strides.group == 0) return {static_cast<T*>(base), rows, strides.row};
  return {static_cast<T*>(base), rows, strides.row, strides.group, kRowsPerGroup - 1, kGroupShift};
}

}  // namespace

extern "C" {

int on_host_pack_rows(const float* rows, const uint8_t* chosen, const int64_t* most, int64_t count,
                      int64_t width, float* packed, int64_t* places, int64_t* packed_count) {
  const gpu::PackRows job{rows, chosen, most, count, width, packed, places, packed_count};
  return gpu::pack_rows(job, workspace(gpu::pack_rows_workspace(job)).data(), nullptr);
}

int on_host_project_out(const float* vectors, const double* direction, int64_t count, int64_t dim,
                        float* rests) {
  return gpu::project_out({vectors, direction, count, dim, rests}, nullptr);
}

int on_host_project_out_inv_norm(const float* vectors, const int64_t* slots, const double* direction,
                                 int64_t count, int64_t dim, float* inv_norm, int64_t slot_count) {
  return gpu::project_out_inv_norm({vectors, slots, direction, count, dim, {inv_norm, slot_count, 1}},
                                   nullptr);
}

// columns: the eight of Nodes, then the ten of Edges.
int on_host_bear(const float* packed, const int64_t* count, const int64_t* neighbors, const float* cosines,
                 int64_t rows, int64_t dim, int64_t links, void* const* columns, const Strides* strides,
                 int64_t slots, int64_t blocks, int64_t* counters, float confidence, float relevance,
                 int64_t* out) {
  const auto node = [&](auto* type, int place) {
    return column_of<std::remove_pointer_t<decltype(type)>>(columns[place], slots, strides[place]);
  };
  const auto block = [&](auto* type, int place) {
    return column_of<std::remove_pointer_t<decltype(type)>>(columns[place], blocks, strides[place]);
  };
  float* f32 = nullptr;
  int32_t* i32 = nullptr;
  uint32_t* u32 = nullptr;
  uint8_t* u8 = nullptr;
  int64_t* i64 = nullptr;
  const Bear job{packed,
                 count,
                 neighbors,
                 cosines,
                 rows,
                 dim,
                 links,
                 {node(f32, 0), node(i64, 1), node(f32, 2), node(u32, 3), node(f32, 4), node(u32, 5),
                  node(u32, 6), node(u8, 7)},
                 {node(i32, 8), block(i32, 9), block(f32, 10), block(i32, 11), block(i32, 12), block(f32, 13),
                  block(f32, 14), block(u32, 15), block(u8, 16), block(i32, 17)},
                 counters,
                 confidence,
                 relevance,
                 out};
  return gpu::bear(job, workspace(gpu::bear_workspace(job)).data(), nullptr);
}

}  // extern "C"
