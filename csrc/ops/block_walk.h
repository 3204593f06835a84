// Walks a chain of edge blocks, one source for host and device, whatever is written in it.
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

// It ends where it leaves the graph, and where it comes back to a block met before: marks are set at powers
// of two, so a ring is gone through a few times at most, however many blocks the graph has. A damaged chain
// can neither read outside nor go on for ever.
template <typename Index>
class BlockWalk {
 public:
  int32_t block;  // -1: the chain has ended

  AESG_HD BlockWalk(const Column<Index>& next_block, int32_t head) : block(head), next_block_(next_block) {
    look();
  }
  AESG_HD bool there() const { return block >= 0; }
  // How many blocks came before this one.
  AESG_HD int64_t place() const { return int64_t{steps_} - 1; }
  AESG_HD void next() {
    block = next_block_[block];
    look();
  }

 private:
  const Column<Index>& next_block_;
  int32_t mark_ = -1;
  uint32_t steps_ = 0;

  AESG_HD void look() {
    if (block < 0 || block >= next_block_.rows || block == mark_) {
      block = -1;
      return;
    }
    if ((steps_ & (steps_ + 1)) == 0) mark_ = block;
    ++steps_;
  }
};

}  // namespace aesg
