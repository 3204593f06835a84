// Column: one node or block column as the kernels see it, flat or in row groups, read in place.
#pragma once

#include <cstdint>

#include "csrc/base/host_device.h"

namespace aesg {

inline constexpr int kGroupShift = 10;
inline constexpr int64_t kRowsPerGroup = int64_t{1} << kGroupShift;  // as csrc/storage/layout.h

// Row r lies at base + (r >> shift) * group_stride + (r & mask) * row_stride, strides in elements. A flat
// column is one group without end. A null base stands for a column that was not given.
template <typename T>
struct Column {
  T* base = nullptr;
  int64_t rows = 0;
  int64_t row_stride = 1;
  int64_t group_stride = 0;
  int64_t mask = INT64_MAX;
  int shift = 62;

  AESG_HD explicit operator bool() const { return base != nullptr; }
  AESG_HD T* at(int64_t row) const {
    return base + (row >> shift) * group_stride + (row & mask) * row_stride;
  }
  AESG_HD T& operator[](int64_t row) const { return *at(row); }
  bool flat() const { return shift != kGroupShift; }
};

}  // namespace aesg
