// Spreading with history: a source gathers its living, strongest edges once; every hop first counts what each
// node receives, then lets nodes rise, and carries the derivatives of those that rose.
#include "csrc/ops/cpu/spread_trace.h"

#include <algorithm>

#include "csrc/ops/cpu/top_k.h"
#include "csrc/ops/spread_activation_math.h"

namespace aesg::cpu {
namespace {

constexpr uint32_t kHashFactor = 0x9e3779b1u;  // 2^32 / golden ratio: neighbouring slots go far apart
constexpr int kFirstTableBits = 10;

}  // namespace

void SpreadTrace::clear() {
  if (table_.empty()) {
    table_.assign(size_t{1} << kFirstTableBits, Entry{0, -1});
    shift_ = 32 - kFirstTableBits;
  }
  for (const uint32_t place : places_) table_[place].node = -1;
  places_.clear();
  nodes_.clear();
  edges_.clear();
  edge_places_.clear();
  sources_.clear();
  firing_.clear();
  rises_.clear();
  seed_nodes_.clear();
  tangents_.clear();
}

void SpreadTrace::grow() {
  table_.assign(table_.size() * 2, Entry{0, -1});
  --shift_;
  for (size_t node = 0; node < nodes_.size(); ++node) {
    uint32_t place = static_cast<uint32_t>(nodes_[node].slot) * kHashFactor >> shift_;
    while (table_[place].node >= 0) place = (place + 1) & (table_.size() - 1);
    table_[place] = {nodes_[node].slot, static_cast<int32_t>(node)};
    places_[node] = place;
  }
}

int32_t SpreadTrace::find(int32_t slot) const {
  uint32_t place = static_cast<uint32_t>(slot) * kHashFactor >> shift_;
  while (table_[place].node >= 0 && table_[place].slot != slot) place = (place + 1) & (table_.size() - 1);
  return table_[place].node;
}

// REQUIRES: find(slot) < 0.
int32_t SpreadTrace::insert(int32_t slot, float factor) {
  if (2 * (nodes_.size() + 1) > table_.size()) grow();
  uint32_t place = static_cast<uint32_t>(slot) * kHashFactor >> shift_;
  while (table_[place].node >= 0) place = (place + 1) & (table_.size() - 1);
  const int32_t node = static_cast<int32_t>(nodes_.size());
  table_[place] = {slot, node};
  places_.push_back(place);
  nodes_.push_back({0, slot, 0, 0, factor, -1, -1, -1, -1, -1, -1});
  return node;
}

// Follows the chain of a source once: living targets become nodes, of parallel edges the strongest stays.
void SpreadTrace::resolve(int32_t source) {
  const SpreadGraph& graph = *graph_;
  nodes_[source].edges_begin = static_cast<int32_t>(edges_.size());
  int64_t steps = graph.next_block.rows;  // a chain longer than all blocks is a ring
  for (int32_t block = graph.first_block[nodes_[source].slot]; block != -1; block = graph.next_block[block]) {
    if (block < 0 || block >= graph.next_block.rows || steps-- == 0) {
      damaged_ = true;
      break;
    }
    const int32_t* targets = graph.targets.at(block);
    const float* strengths = graph.strengths.at(block);
    for (int place = 0; place < kEdgesPerBlock; ++place) {
      const int32_t target = targets[place];
      if (target < 0) continue;
      if (target >= graph.active.rows) {
        damaged_ = true;
        continue;
      }
      int32_t node = find(target);
      if (node < 0) {
        if (!graph.active[target]) continue;
        const bool inside = region_ != 0 && graph.regions[target] == region_;
        node = insert(target, inside ? facilitation_ : 1.0f);
      }
      Node& to = nodes_[node];
      if (to.last_source == source) {  // parallel edges
        Edge& twin = edges_[to.last_edge];
        if (strengths[place] > twin.strength) {
          twin.strength = strengths[place];
          edge_places_[to.last_edge] = int64_t{block} * kEdgesPerBlock + place;
        }
        continue;
      }
      to.last_source = source;
      to.last_edge = static_cast<int32_t>(edges_.size());
      edges_.push_back({node, strengths[place]});
      edge_places_.push_back(int64_t{block} * kEdgesPerBlock + place);
    }
  }
  nodes_[source].edges_end = static_cast<int32_t>(edges_.size());
}

void SpreadTrace::run(const SpreadGraph& graph, const SpreadRules& rules, const int64_t* seeds,
                      const float* energies, int64_t seed_count) {
  clear();
  graph_ = &graph;
  facilitation_ = rules.facilitation;
  seed_count_ = seed_count;
  region_ = graph.dominant_region(seeds, seed_count);

  for (int64_t s = 0; s < seed_count; ++s) {
    const int32_t slot = static_cast<int32_t>(seeds[s]);
    seed_nodes_.push_back(-1);
    if (slot < 0 || !(energies[s] > 0.0f) || !graph.active[slot]) continue;
    int32_t node = find(slot);
    if (node < 0) {
      const bool inside = region_ != 0 && graph.regions[slot] == region_;
      node = insert(slot, inside ? facilitation_ : 1.0f);
    }
    if (!(energies[s] > nodes_[node].energy)) continue;
    std::replace(seed_nodes_.begin(), seed_nodes_.end(), node, -1);  // a weaker one of the same slot
    seed_nodes_[s] = node;
    nodes_[node].energy = energies[s];
  }
  for (size_t node = 0; node < nodes_.size(); ++node)
    if (nodes_[node].energy >= rules.source_floor) firing_.push_back(static_cast<int32_t>(node));
  tangents_.assign(nodes_.size() * seed_count, 0.0f);
  for (int64_t s = 0; s < seed_count; ++s)
    if (seed_nodes_[s] >= 0) tangents_[seed_nodes_[s] * seed_count + s] = 1.0f;

  for (int32_t hop = 0; hop < rules.hops && !firing_.empty(); ++hop) {
    changed_.clear();
    for (const int32_t source : firing_)
      if (nodes_[source].edges_begin < 0) resolve(source);
    for (const int32_t source : firing_) {
      Node& from = nodes_[source];
      const float before = from.fired, now = from.energy;
      if (before == 0.0f) sources_.push_back(source);
      from.fired = now;
      const Edge* end = edges_.data() + from.edges_end;
      for (const Edge* edge = edges_.data() + from.edges_begin; edge != end; ++edge) {
        Node& to = nodes_[edge->node];
        int64_t more =
            fixed_transfer(transfer(now, edge->strength, rules.decay, to.factor), rules.transfer_floor);
        if (before != 0.0f)
          more -=
              fixed_transfer(transfer(before, edge->strength, rules.decay, to.factor), rules.transfer_floor);
        if (more == 0) continue;
        to.sum += more;
        if (to.changed != hop) {
          to.changed = hop;
          changed_.push_back(edge->node);
        }
      }
    }
    next_firing_.clear();
    const size_t first_rise = rises_.size();
    for (const int32_t node : changed_) {
      Node& to = nodes_[node];
      const float energy = fixed_energy(to.sum);
      if (!(energy > to.energy)) continue;
      rises_.push_back({hop, node, to.energy, to.sum >= kFixedUnit});
      if (energy >= rules.source_floor) next_firing_.push_back(node);
    }
    carry_tangents(rules, first_rise);
    firing_.swap(next_firing_);
  }
}

// The same hop for the derivatives: d n_j = sum over i of d x_ij, for the nodes that rise; then lets them
// rise.
void SpreadTrace::carry_tangents(const SpreadRules& rules, size_t first_rise) {
  const int64_t width = seed_count_;
  tangents_.resize(nodes_.size() * width, 0.0f);
  fresh_.assign((rises_.size() - first_rise) * width, 0.0f);
  for (size_t i = first_rise; i < rises_.size(); ++i)
    if (!rises_[i].saturated) nodes_[rises_[i].node].risen = static_cast<int32_t>(i - first_rise);
  for (const int32_t source : sources_) {
    const Node& from = nodes_[source];
    const float* tangent = tangents_.data() + source * width;
    for (int32_t e = from.edges_begin; e < from.edges_end; ++e) {
      const Node& to = nodes_[edges_[e].node];
      if (to.risen < 0) continue;
      const float strength = edges_[e].strength;
      if (!(transfer(from.energy, strength, rules.decay, to.factor) > rules.transfer_floor)) continue;
      const float slope = transfer(1.0f, strength, rules.decay, to.factor);
      float* sum = fresh_.data() + to.risen * width;
      for (int64_t s = 0; s < width; ++s) sum[s] += slope * tangent[s];
    }
  }
  for (size_t i = first_rise; i < rises_.size(); ++i) {
    Node& to = nodes_[rises_[i].node];
    to.energy = fixed_energy(to.sum);
    to.risen = -1;
    std::copy_n(fresh_.data() + (i - first_rise) * width, width, tangents_.data() + rises_[i].node * width);
  }
}

void SpreadTrace::result(int64_t k, float* energies, int64_t* slots, float* jacobian) {
  static thread_local TopK best;
  best.reset(std::min<int64_t>(k, static_cast<int64_t>(nodes_.size())));
  for (const Node& node : nodes_)
    if (node.energy > 0.0f) best.push({node.energy, node.slot});
  const std::vector<Scored>& found = best.sorted();
  for (int64_t i = 0; i < k; ++i) {
    const bool there = i < static_cast<int64_t>(found.size());
    energies[i] = there ? found[i].score : 0.0f;
    slots[i] = there ? found[i].slot : -1;
    float* row = jacobian + i * seed_count_;
    if (there) {
      const int32_t node = find(static_cast<int32_t>(found[i].slot));
      std::copy_n(tangents_.data() + node * seed_count_, seed_count_, row);
    } else {
      std::fill_n(row, seed_count_, 0.0f);
    }
  }
}

void SpreadTrace::backward(const SpreadRules& rules, const float* gradients, const int64_t* slots, int64_t k,
                           std::vector<EdgeGradient>* out) {
  gradients_.assign(nodes_.size(), 0.0f);  // d loss / d energy after the hop looked at
  arriving_.assign(nodes_.size(), 0.0f);   // d loss / d n of that hop
  for (int64_t i = 0; i < k; ++i) {
    const int32_t node = slots[i] >= 0 ? find(static_cast<int32_t>(slots[i])) : -1;
    if (node >= 0) gradients_[node] += gradients[i];
  }
  std::vector<float> edge_gradients(edges_.size(), 0.0f);
  for (size_t end = rises_.size(); end > 0;) {
    size_t begin = end;
    while (begin > 0 && rises_[begin - 1].hop == rises_[end - 1].hop) --begin;
    for (size_t i = begin; i < end; ++i) {  // energies go back to what they were before the hop
      const Rise& rise = rises_[i];
      nodes_[rise.node].energy = rise.before;
      arriving_[rise.node] = rise.saturated ? 0.0f : gradients_[rise.node];
      gradients_[rise.node] = 0.0f;
    }
    for (const int32_t source : sources_) {
      const Node& from = nodes_[source];
      if (from.energy < rules.source_floor) continue;
      for (int32_t e = from.edges_begin; e < from.edges_end; ++e) {
        const float arriving = arriving_[edges_[e].node];
        if (arriving == 0.0f) continue;
        const float strength = edges_[e].strength, factor = nodes_[edges_[e].node].factor;
        if (!(transfer(from.energy, strength, rules.decay, factor) > rules.transfer_floor)) continue;
        gradients_[source] += arriving * transfer(1.0f, strength, rules.decay, factor);
        edge_gradients[e] += arriving * transfer(from.energy, 1.0f, rules.decay, factor);
      }
    }
    for (size_t i = begin; i < end; ++i) arriving_[rises_[i].node] = 0.0f;
    end = begin;
  }
  for (size_t e = 0; e < edges_.size(); ++e)
    if (edge_gradients[e] != 0.0f) out->push_back({edge_places_[e], edge_gradients[e]});
}

bool SpreadTrace::take_damage() {
  const bool was = damaged_;
  damaged_ = false;
  return was;
}

}  // namespace aesg::cpu
