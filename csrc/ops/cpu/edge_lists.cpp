#include "csrc/ops/cpu/edge_lists.h"

#include <algorithm>
#include <cstring>

#include "csrc/ops/cpu/simd.h"

namespace aesg::cpu {

using Four = Portable;

void EdgeLists::restart(const SpreadGraph& graph) {
  graph_ = graph;
  const auto slots = static_cast<size_t>(graph.active.rows);
  if (places_.size() < slots) places_.resize(slots, Place{0, 0, 0});
  if (++call_ == 0) {  // after four billion calls
    std::fill(places_.begin(), places_.end(), Place{0, 0, 0});
    call_ = 1;
  }
  used_ = 0;
}

void SpreadGraph::fetch_chains(const int32_t* blocks, size_t count) const {
  constexpr int kWalkers = 16, kMostSteps = 4096;  // as many lines as the second-level cache may lose
  int32_t at[kWalkers];
  int walkers = 0;
  size_t next_chain = 0;
  const auto start = [&]() -> int32_t {  // the head of the next chain, -1: all were begun
    while (next_chain < count) {
      const int32_t block = blocks[next_chain++];
      if (has_block(block)) return block;
    }
    return -1;
  };
  const auto take = [&](int32_t block) {
    __builtin_prefetch(targets.at(block));
    return block;
  };
  while (walkers < kWalkers) {
    const int32_t block = start();
    if (block < 0) break;
    at[walkers++] = take(block);
  }
  for (int steps = 0; walkers != 0 && steps < kMostSteps; steps += walkers) {
    for (int w = 0; w < walkers; ++w) {
      int32_t block = next_block[at[w]];
      if (!has_block(block)) block = start();
      if (block >= 0)
        at[w] = take(block);
      else
        at[w--] = at[--walkers];
    }
  }
}

// Copies the edges of a block with gaps; returns how many.
uint32_t EdgeLists::copy_some(const int32_t* targets, const float* strengths, uint32_t at, bool* damaged) {
  const uint32_t slots = static_cast<uint32_t>(graph_.active.rows);
  uint32_t size = 0;
  for (int i = 0; i < kEdgesPerBlock; ++i) {
    const bool inside = static_cast<uint32_t>(targets[i]) < slots;
    if (!inside && targets[i] != -1) *damaged = true;
    if (!inside) continue;
    targets_[at + size] = targets[i];
    strengths_[at + size++] = strengths[i];
  }
  return size;
}

void EdgeLists::make(int32_t slot, bool* damaged) {
  constexpr uint32_t kRoom = kEdgesPerBlock + kEdgesTogether;
  const uint32_t begin = used_;
  const int32_t slots = static_cast<int32_t>(graph_.active.rows);
  uint32_t end = begin;
  int32_t mark = -1;  // a block met before: a chain that comes back to it is a ring
  uint32_t steps = 0, next_mark = 1;
  for (int32_t block = graph_.first_block[slot], next; block != -1; block = next) {
    if (!graph_.has_block(block) || block == mark) {
      *damaged = true;
      break;
    }
    if (++steps == next_mark) {
      mark = block;
      next_mark *= 2;
    }
    const int32_t* targets = graph_.targets.at(block);
    const float* strengths = graph_.strengths.at(block);
    next = graph_.next_block[block];
    if (targets_.size() < end + kRoom) {
      targets_.resize(2 * (end + kRoom));
      strengths_.resize(targets_.size());
    }
    // Mostly the first places are in use.
    Four::Mask low, high;
    std::memcpy(&low, targets, sizeof low);
    std::memcpy(&high, targets + 3, sizeof high);
    const uint32_t used = Four::bits((low >= 0) & (low < slots)) | Four::bits((high >= 0) & (high < slots))
                                                                       << 3;
    const uint32_t unused = Four::bits(low == -1) | Four::bits(high == -1) << 3;
    const uint32_t filled = static_cast<uint32_t>(__builtin_ctz(~used));
    const bool plain = (used & (used + 1)) == 0 && (used | unused) == 0x7f;
    if (__builtin_expect(plain, 1)) {
      std::copy_n(targets, kEdgesPerBlock, targets_.data() + end);
      std::copy_n(strengths, kEdgesPerBlock, strengths_.data() + end);
      end += filled;
    } else {
      end += copy_some(targets, strengths, end, damaged);
    }
  }
  const uint32_t size = (end - begin + kEdgesTogether - 1) / kEdgesTogether * kEdgesTogether;
  std::fill(targets_.data() + end, targets_.data() + begin + size, 0);
  std::fill(strengths_.data() + end, strengths_.data() + begin + size, 0.0f);
  used_ = begin + size;
  places_[slot] = {call_, begin, size};
}

}  // namespace aesg::cpu
