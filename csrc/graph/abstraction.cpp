#include "csrc/graph/abstraction.h"

#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "csrc/graph/adjacency.h"

namespace aesg::graph {

namespace {

// Living ends of the abstraction edges from a concept: what was abstracted from it (up) or its parents
// (down).
std::vector<int64_t> ends(Store& store, int64_t slot, bool up) {
  std::vector<int64_t> found;
  for_each_edge(store, slot, [&](int32_t block, int index) {
    const storage::ColdBlock& cold = *store.cold(block);
    const int32_t target = store.hot(block)->target[index];
    if (edge_kind(cold, index) == EdgeKind::kAbstraction && leads_up(cold, index) == up &&
        is_active(store, target))
      found.push_back(target);
  });
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::vector<int64_t> with_orphans(Store& store, const int64_t* slots, int64_t n) {
  std::vector<int64_t> order;
  std::unordered_set<int64_t> gone;
  const auto take = [&](int64_t slot) {
    if (is_active(store, slot) && gone.insert(slot).second) order.push_back(slot);
  };
  for (int64_t i = 0; i < n; ++i) take(slots[i]);
  for (size_t i = 0; i < order.size(); ++i) {
    for (int64_t above : ends(store, order[i], true)) {
      const std::vector<int64_t> parents = ends(store, above, false);
      if (std::all_of(parents.begin(), parents.end(), [&](int64_t p) { return gone.count(p) != 0; }))
        take(above);
    }
  }
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<uint8_t> share_abstraction(Store& store, const int64_t* pairs, int64_t n) {
  std::vector<uint8_t> share(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t one = pairs[2 * i], other = pairs[2 * i + 1];
    const std::vector<int64_t> left = ends(store, one, true), right = ends(store, other, true);
    std::vector<int64_t> common;
    std::set_intersection(left.begin(), left.end(), right.begin(), right.end(), std::back_inserter(common));
    share[static_cast<size_t>(i)] = !common.empty() || std::binary_search(left.begin(), left.end(), other) ||
                                    std::binary_search(right.begin(), right.end(), one);
  }
  return share;
}

}  // namespace aesg::graph
