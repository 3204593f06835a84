// Column: one node or block column as the kernels see it, flat or in row groups, read in place.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define AESG_HD __host__ __device__
#else
#define AESG_HD
#endif

namespace aesg {

inline constexpr int64_t kRowsPerGroup = 1024;  // as csrc/storage/layout.h

// Row r lies at base + (r / group_rows) * group_stride + (r % group_rows) * row_stride, strides in elements.
// A flat column is one group of all its rows. A null base stands for a column that was not given.
template <typename T>
struct Column {
  T* base = nullptr;
  int64_t rows = 0;
  int64_t group_rows = 1;
  int64_t group_stride = 0;
  int64_t row_stride = 1;

  AESG_HD explicit operator bool() const { return base != nullptr; }
  AESG_HD T* at(int64_t row) const {
    if (rows == group_rows) return base + row * row_stride;  // flat: no division
    return base + (row / group_rows) * group_stride + (row % group_rows) * row_stride;
  }
};

}  // namespace aesg
