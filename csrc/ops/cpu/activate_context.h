// From a query's seeds to its context, on plain pointers, one query at a time. The caller threads over
// queries.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/ops/cpu/spread_activation.h"
#include "csrc/ops/cpu/spread_trace.h"

namespace aesg::cpu {

// What primes B streams: the last primary concepts of each, P a stream. Null slots: nothing.
struct Priming {
  const int64_t* slots = nullptr;    // [B, P], -1: none
  const int64_t* ids = nullptr;      // [B, P], bits of u64: what the slots held
  const float* energies = nullptr;   // [B, P]
  Column<const int64_t> current_id;  // [N] or null: slots are never given to another concept
  float share = 0.0f;                // of their energy, what carries over
  int64_t count = 0;                 // P
};

struct ContextRules {
  float relative;   // seeds weaker than this share of the best are none
  int64_t seeds;    // S
  int64_t members;  // K
  bool jacobian;
};

// One query's answer. Energies, slots: strongest first, padded with 0 and -1.
struct ContextOut {
  float* similarities;  // [S]
  int64_t* seeds;       // [S]
  float* energies;      // [K]
  int64_t* members;     // [K]
  float* jacobian;      // [K, S], d energy / d similarity, or null
};

class ContextFinder {
 public:
  // Before the runs of one call, over a graph that stays as it is meanwhile.
  void begin_call(const SpreadGraph& graph, const SpreadRules& rules) { spreader_.begin_call(graph, rules); }

  // similarities, seeds [S]: as the search found them, best first; bar: the best similarity elsewhere, at
  // least 0. stream: which row of the priming, -1 for none. REQUIRES: begin_call with the same
  // graph and rules; slots < N; values finite.
  void run(const SpreadGraph& graph, const SpreadRules& rules, const ContextRules& context,
           const Priming& priming, const float* similarities, const int64_t* seeds, float bar, int64_t stream,
           const ContextOut& out);

  // Whether a run met a slot or block outside the graph. Cleared by reading.
  bool take_damage();

 private:
  struct Entry {
    float value;
    int64_t slot;
    bool leads;   // it is a seed
    int32_t row;  // of the derivative: >= 0 a member's, < 0 seed -1 - row itself
  };
  void lead_by_seeds(const ContextRules& context, const ContextOut& out);

  Spreader spreader_;
  SpreadTrace trace_;
  std::vector<int64_t> starts_, members_;
  std::vector<float> start_energies_, energies_, slopes_, led_;
  std::vector<Entry> entries_;
};

}  // namespace aesg::cpu
