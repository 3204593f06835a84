// What count_use_ does, one source for host and device.
#pragma once

#include <cstdint>

#include "csrc/base/reinforce_math.h"
#include "csrc/ops/columns.h"

namespace aesg {

struct CountUse {
  Column<uint32_t> use_frequency;  // [N]
  Column<float> relevance;         // [N]
  Column<const uint8_t> active;    // [N]
  const int64_t* members;          // [n] slots; dead, negative and outside: no use
  const float* energies;           // [n]
  const int64_t* order;            // [n] places in the order in which they are taken, or null: as they lie
  int64_t count;                   // n
  float gain;
};

struct Used {
  int64_t slot;  // -1: none
  float energy;
};

// The use at place `at` of the order.
AESG_HD inline Used use_at(const CountUse& job, int64_t at) {
  if (at < 0 || at >= job.count) return {-1, 0.0f};
  const int64_t place = job.order != nullptr ? job.order[at] : at;
  if (place < 0 || place >= job.count) return {-1, 0.0f};
  const int64_t slot = job.members[place];
  const float energy = job.energies[place];
  if (slot < 0 || slot >= job.active.rows || job.active[slot] == 0) return {-1, 0.0f};
  return {slot, energy};
}

}  // namespace aesg
