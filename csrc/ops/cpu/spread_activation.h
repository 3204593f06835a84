// CPU kernel of spread_activation on plain pointers, one query at a time. The caller threads over queries.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/ops/cpu/edge_lists.h"
#include "csrc/ops/cpu/top_k.h"

namespace aesg::cpu {

struct SpreadRules {
  int64_t hops;  // T
  float decay;
  float facilitation;    // factor of edges into the region of the first seed
  float source_floor;    // sources below it carry nothing
  float transfer_floor;  // transfers not above it are lost
};

// Spreads one query after the other on one thread; its memory is kept between calls. Costs follow what a
// query touches, never N.
class Spreader {
 public:
  // What every run up to the next begin_call() spreads over. REQUIRES: the graph stays as it is meanwhile.
  void begin_call(const SpreadGraph& graph, const SpreadRules& rules);

  // Energies of one query after all hops. Seeds below 0 and inactive ones are left out, of equal ones the
  // strongest counts. REQUIRES: seeds < N; energies finite.
  void run(const int64_t* seeds, const float* energies, int64_t seed_count);

  // The k strongest of the last run, ties lower slot, padded with 0 and -1.
  void result(int64_t k, float* energies, int64_t* slots);

  // Whether a run met a slot or block outside the graph: the edge data is damaged. Cleared by reading.
  bool take_damage();

 private:
  struct Entry {  // of the table, 16 bytes: a touched concept
    int32_t slot;
    uint32_t stamp;   // clock of the last firing that reached it; older than the query: the place is free
    int32_t sum;      // n_j in fixed point, held at kSumCeiling
    uint32_t source;  // 1 + place among the sources, 0: none
  };
  struct Source {  // a seed, or a concept that reached the source floor
    float energy;
    float fired;  // energy at which its edges were last counted, 0: never
    int32_t slot;
  };
  struct Gift {  // what one edge adds to its target
    int32_t target;
    int32_t amount;
    uint32_t firing;  // place in firing_ of the source
    uint32_t edge;    // place in the source's list
  };

  void begin_query();
  void reserve();
  void grow();
  uint32_t find_place(int32_t slot) const;
  Entry* touch_seed(int32_t slot);
  void fire_all();
  template <bool kRegions>
  void fire(uint32_t firing);
  template <bool kDirect>
  void hand_out();
  void flush();
  int32_t beyond_twins(const Gift& gift);
  void end_hop();

  SpreadGraph graph_;
  SpreadRules rules_{};
  EdgeLists lists_;
  int32_t region_ = 0;
  bool damaged_ = false;
  uint32_t clock_ = 0;                       // counts firings, over all queries
  uint32_t query_begin_ = 1;                 // first clock of this query
  uint32_t hop_begin_ = 1;                   // first clock of this hop
  bool direct_ = false;                      // a place is a slot; else open addressing
  int bits_ = 10;                            // 2^bits_ places of the table are in use
  std::vector<Entry> table_;                 // open addressing
  std::vector<Entry> moved_;                 // while growing
  std::vector<uint32_t> touched_, changed_;  // places: of this query, of this hop
  std::vector<Source> sources_;
  std::vector<uint32_t> firing_, next_firing_;  // sources whose energy changed
  std::vector<float> fired_before_;             // of firing_: energy when last fired
  std::vector<Gift> gifts_;                     // on their way to their targets
  size_t gift_count_ = 0;
  TopK best_;
};

}  // namespace aesg::cpu
