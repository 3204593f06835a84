// What keep_primary_ does for one place of one stream, one source for host and device.
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

struct KeepPrimary {
  const int64_t* members;  // [B * steps, K], strongest first; outside -1..N-1: as -1
  const float* energies;   // [B * steps, K]
  int64_t streams, steps, members_each;
  Column<const int64_t> ids;  // [N]
  int64_t kept;               // P
  int64_t* slots;             // [B, P]
  int64_t* slot_ids;          // [B, P]
  float* slot_energies;       // [B, P]
};

// place in 0..B * P - 1: the p-th strongest of the last step of stream b.
AESG_HD inline void keep_one(const KeepPrimary& job, int64_t place) {
  const int64_t b = place / job.kept, p = place % job.kept;
  const int64_t from = ((b + 1) * job.steps - 1) * job.members_each + p;
  const int64_t slot = p < job.members_each ? job.members[from] : -1;
  const bool there = slot >= 0 && slot < job.ids.rows;
  job.slots[place] = there ? slot : -1;
  job.slot_ids[place] = there ? job.ids[slot] : 0;
  job.slot_energies[place] = p < job.members_each ? job.energies[from] : 0.0f;
}

}  // namespace aesg
