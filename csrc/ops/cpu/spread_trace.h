// Spreading with its history, for derivatives: the same rule and bits as Spreader, slower, since edges are
// gathered once a query and every rise of energy is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "csrc/ops/cpu/spread_activation.h"

namespace aesg::cpu {

// Gradient of the loss with respect to one edge's strength; edge = 7 * block + place.
struct EdgeGradient {
  int64_t edge;
  float gradient;
};

class SpreadTrace {
 public:
  // As Spreader::run, and d energy / d seed energy of everything touched.
  void run(const SpreadGraph& graph, const SpreadRules& rules, const int64_t* seeds, const float* energies,
           int64_t seed_count);

  // As Spreader::result, and d energy / d seed energy [k][seed_count].
  void result(int64_t k, float* energies, int64_t* slots, float* jacobian);

  // d loss / d strength of every edge that carried something to where `gradients` [k] of `slots` [k] came
  // from.
  void backward(const SpreadRules& rules, const float* gradients, const int64_t* slots, int64_t k,
                std::vector<EdgeGradient>* out);

  // Whether run() met a slot or block outside the graph: the edge data is damaged. Cleared by reading.
  bool take_damage();

 private:
  struct Node {
    int64_t sum;  // n_j of the last hop
    int32_t slot;
    float energy;
    float fired;                     // energy at which its edges were last counted, 0: never
    float factor;                    // facilitation into this node, or 1
    int32_t edges_begin, edges_end;  // resolved edges, begin -1: not yet
    int32_t last_source, last_edge;  // the resolved edge into this node made last: finds parallel edges
    int32_t changed;                 // hop in which sum was last changed
    int32_t risen;                   // place among this hop's risen nodes, -1: not risen
  };
  struct Edge {
    int32_t node;
    float strength;
  };
  struct Rise {  // one step of history: in `hop`, `node` rose from `before`
    int32_t hop, node;
    float before;
    bool saturated;
  };
  struct Entry {
    int32_t slot, node;
  };

  void clear();
  void grow();
  int32_t find(int32_t slot) const;
  int32_t insert(int32_t slot, float factor);
  void resolve(int32_t source);
  void carry_tangents(const SpreadRules& rules, std::size_t first_rise);

  const SpreadGraph* graph_ = nullptr;
  int32_t region_ = 0;  // the dominant one, 0: none
  float facilitation_ = 1;
  bool damaged_ = false;
  int shift_ = 0;                              // hash -> table place
  std::vector<Entry> table_;                   // open addressing, node -1: empty
  std::vector<uint32_t> places_;               // table place of each node
  std::vector<Node> nodes_;                    // touched by this query
  std::vector<Edge> edges_;                    // resolved edges of all sources met
  std::vector<int64_t> edge_places_;           // 7 * block + place of each
  std::vector<int32_t> sources_;               // nodes at or above the source floor
  std::vector<int32_t> firing_, next_firing_;  // sources whose energy changed
  std::vector<int32_t> changed_;               // nodes whose sum changed in this hop
  std::vector<Rise> rises_;                    // history, hop by hop
  int64_t seed_count_ = 0;
  std::vector<int32_t> seed_nodes_;      // node that seed s counts for, -1: none
  std::vector<float> tangents_, fresh_;  // [nodes][seed_count], and those of this hop's risen nodes
  std::vector<float> gradients_, arriving_;
};

}  // namespace aesg::cpu
