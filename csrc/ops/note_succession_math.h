// What note_succession_ does for one row, one source for host and device: the rule of `Learner.learn`
// (aesg/memory/learning.py).
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

struct NoteSuccession {
  const int64_t* seeds;       // [B * steps, S], best first; outside 0..N-1: as -1
  const float* similarities;  // [B * steps, S]
  const int64_t* born_slots;  // [B * steps], the newborn that a novel row means; outside 0..N-1: as -1
  int64_t streams, steps, seed_count;
  const int64_t* newborn;        // [newborn_count], of which `born_slots` are places then
  int64_t newborn_count;         // -1: there are none, and `born_slots` are slots
  Column<const int64_t> ids;     // [N]
  Column<const uint8_t> active;  // [N]
  float threshold;
  int64_t* last_seed;  // [B]
  int64_t* last_id;    // [B]
  int64_t* previous;   // [B * steps]
  int64_t* current;    // [B * steps]
};

// The concept that a row meant: its best seed, or, if that does not explain it, what was born of it. What is
// not a number is neither.
AESG_HD inline int64_t concept_meant(const NoteSuccession& job, int64_t row) {
  const int64_t best = row * job.seed_count;
  int64_t slot = -1;
  if (job.seed_count == 0 || job.similarities[best] < job.threshold) {
    slot = job.born_slots[row];
    if (job.newborn_count >= 0) slot = slot >= 0 && slot < job.newborn_count ? job.newborn[slot] : -1;
  } else if (job.similarities[best] >= job.threshold) {
    slot = job.seeds[best];
  }
  return slot >= 0 && slot < job.ids.rows ? slot : -1;
}

// row in 0..B * steps - 1, in any order: who begins a stream reads what it was last about, and then writes
// what its last row was.
AESG_HD inline void note_succession_row(const NoteSuccession& job, int64_t row) {
  job.current[row] = concept_meant(job, row);
  if (row % job.steps != 0) {
    job.previous[row] = concept_meant(job, row - 1);
    return;
  }
  const int64_t b = row / job.steps, before = job.last_seed[b];
  const bool there = before >= 0 && before < job.ids.rows && job.active[before] != 0;
  job.previous[row] = there && job.ids[before] == job.last_id[b] ? before : -1;
  const int64_t last = concept_meant(job, row + job.steps - 1);
  job.last_seed[b] = last;
  job.last_id[b] = last >= 0 ? job.ids[last] : 0;
}

}  // namespace aesg
