#include "csrc/graph/check.h"

#include <cmath>
#include <set>
#include <unordered_set>
#include <utility>

#include "csrc/graph/adjacency.h"
#include "csrc/graph/population.h"

namespace aesg::graph {

using storage::ColdBlock;
using storage::HotBlock;
using storage::kBlockEdges;
using storage::NodeColumn;

namespace {

constexpr size_t kMaxFindings = 100;
constexpr double kNormTolerance = 1e-4;  // relative; inv_norm is rounded to f32 once

class Findings {
 public:
  void add(const std::string& text) {
    if (lines_.size() < kMaxFindings) lines_.push_back(text);
  }
  void expect(bool good, const std::string& text) {
    if (!good) add(text);
  }
  std::vector<std::string> take() { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
};

std::string name(int64_t slot) { return "slot " + std::to_string(slot); }

void check_values(Store& store, int64_t slot, Findings& findings) {
  const int64_t dim = store.layout().dim();
  const float* vector = store.at<float>(NodeColumn::kVector, slot);
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(vector[d]) * vector[d];
  const double inv_norm = *store.at<float>(NodeColumn::kInvNorm, slot);
  const double product = inv_norm * std::sqrt(sum);
  const bool right = std::sqrt(sum) >= kShortest ? std::abs(product - 1) <= kNormTolerance : inv_norm == 0;
  findings.expect(std::isfinite(sum) && right, name(slot) + ": inv_norm does not fit the vector");
  const float relevance = *store.at<float>(NodeColumn::kRelevance, slot);
  findings.expect(std::isfinite(relevance) && relevance >= 0, name(slot) + ": relevance out of range");
}

// Walks one chain. Returns its number of edges.
uint64_t check_chain(Store& store, int64_t slot, std::unordered_set<int32_t>& seen, Findings& findings) {
  const int64_t nodes = static_cast<int64_t>(store.counters().node_count);
  const int64_t blocks = static_cast<int64_t>(store.counters().block_count);
  std::set<std::pair<int32_t, uint8_t>> pairs;
  uint64_t edges = 0;
  for (int32_t block = first_block(store, slot); block != -1;) {
    if (block < 0 || block >= blocks) {
      findings.add(name(slot) + ": chain leads to block " + std::to_string(block));
      break;
    }
    if (!seen.insert(block).second) {
      findings.add(name(slot) + ": block " + std::to_string(block) + " is in two chains or a cycle");
      break;
    }
    const HotBlock& hot = *store.hot(block);
    const ColdBlock& cold = *store.cold(block);
    findings.expect(cold.source == slot, name(slot) + ": block of another source");
    if (hot.count < 1 || hot.count > kBlockEdges) {
      findings.add(name(slot) + ": block with " + std::to_string(hot.count) + " edges");
      break;
    }
    for (int i = 0; i < hot.count; ++i) {
      const int32_t target = hot.target[i];
      if (target < 0 || target >= nodes || *store.at<uint64_t>(NodeColumn::kId, target) == 0) {
        findings.add(name(slot) + ": edge to slot " + std::to_string(target) + ", which is not in use");
        continue;
      }
      findings.expect(target != slot, name(slot) + ": edge to itself");
      findings.expect(pairs.insert({target, cold.tag[i] & storage::kEdgeKindMask}).second,
                      name(slot) + ": two edges of a kind to slot " + std::to_string(target));
      findings.expect(hot.strength[i] == cold.weight[i] * cold.confidence[i],
                      name(slot) + ": strength is not weight * confidence");
      findings.expect(cold.confidence[i] >= 0 && cold.confidence[i] <= 1,
                      name(slot) + ": confidence out of range");
    }
    edges += static_cast<uint64_t>(hot.count);
    block = hot.next;
  }
  return edges;
}

}  // namespace

std::vector<std::string> check(Store& store) {
  Findings findings;
  const storage::Counters& counters = store.counters();
  const int64_t nodes = static_cast<int64_t>(counters.node_count);
  uint64_t living = 0, edges = 0, free_slots = 0;
  std::unordered_set<uint64_t> ids;
  std::unordered_set<int32_t> blocks;
  for (int64_t slot = 0; slot < nodes; ++slot) {
    const uint64_t id = *store.at<uint64_t>(NodeColumn::kId, slot);
    if (id == 0) {
      findings.expect(!is_active(store, slot), name(slot) + ": free but active");
      ++free_slots;
      continue;
    }
    findings.expect(ids.insert(id).second, name(slot) + ": id " + std::to_string(id) + " is not unique");
    findings.expect(id < counters.next_id, name(slot) + ": id not below next_id");
    if (!is_active(store, slot)) {
      findings.expect(first_block(store, slot) == -1, name(slot) + ": dead with edges");
      continue;
    }
    ++living;
    check_values(store, slot, findings);
    edges += check_chain(store, slot, blocks, findings);
  }
  findings.expect(
      living == counters.active_count,
      "active_count is " + std::to_string(counters.active_count) + ", living are " + std::to_string(living));
  findings.expect(edges == counters.edge_count, "edge_count is " + std::to_string(counters.edge_count) +
                                                    ", edges are " + std::to_string(edges));
  uint64_t listed = 0;
  for (int64_t slot = counters.free_slot; slot >= 0 && listed <= free_slots; ++listed) {
    if (slot >= nodes || *store.at<uint64_t>(NodeColumn::kId, slot) != 0) break;
    slot = -static_cast<int64_t>(first_block(store, slot)) - 2;
  }
  findings.expect(listed == free_slots, "the free list holds " + std::to_string(listed) + " of " +
                                            std::to_string(free_slots) + " free slots");
  return findings.take();
}

}  // namespace aesg::graph
