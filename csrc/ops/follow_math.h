// What follow_ is given and what host and device share of it; the rule: csrc/graph/reinforce.h, `follow`.
#pragma once

#include <cstdint>

#include "csrc/ops/edges.h"

namespace aesg {

struct FollowRules {
  float initial;  // confidence of a new edge
  float rate;     // share that moves to the successor seen, when its edge exists
  float yield;    // share that the other successors give up for a new edge
};

struct Follow {
  Edges edges;
  Column<const uint8_t> active;  // [N]
  int64_t* counters;             // [kCounterCount]
  const int64_t* previous;       // [n]
  const int64_t* current;        // [n]
  int64_t count;                 // n, up to kMostFollowed
  FollowRules rules;

  AESG_HD bool alive(int64_t slot) const {
    return slot >= 0 && slot < counters[kNodeCount] && slot < active.rows && active[slot] != 0;
  }
  AESG_HD bool is_event(int64_t i) const {
    return previous[i] != current[i] && alive(previous[i]) && alive(current[i]);
  }
  // The share of its confidence that another successor keeps at an event.
  AESG_HD float kept(bool taken) const { return 1.0f - (taken ? rules.rate : rules.yield); }
};

inline constexpr int64_t kMostFollowed = int64_t{1} << 30;

}  // namespace aesg
