// What the launchers of this folder share.
#pragma once

#include <vector>

#include "csrc/ops/gpu/launch.h"

namespace on_host {

using namespace aesg;

// A workspace that holds anything before a launch.
inline std::vector<int64_t> workspace(size_t bytes) {
  return std::vector<int64_t>(bytes / 8 + 1, 0x5b5b5b5b5b5b5b5b);
}

template <typename T>
Column<T> flat(T* base, int64_t rows, int64_t stride = 1) {
  return {base, rows, stride};
}

struct Rules {  // as the test passes them
  int64_t hops;
  float decay, facilitation, source_floor, transfer_floor;
};

inline gpu::SpreadRules rules_of(const Rules& rules) {
  return {rules.hops, rules.decay, rules.facilitation, rules.source_floor, rules.transfer_floor};
}

inline gpu::SpreadGraph graph_of(void* const* columns, int64_t slots, int64_t blocks) {
  return {flat(static_cast<const int32_t*>(columns[0]), slots),
          flat(static_cast<const int32_t*>(columns[1]), blocks, 7),
          flat(static_cast<const float*>(columns[2]), blocks, 7),
          flat(static_cast<const int32_t*>(columns[3]), blocks),
          flat(static_cast<const uint8_t*>(columns[4]), slots),
          flat(static_cast<const int32_t*>(columns[5]), columns[5] != nullptr ? slots : 0)};
}

}  // namespace on_host
