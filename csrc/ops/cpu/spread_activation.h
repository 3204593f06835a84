// CPU kernel of spread_activation on plain pointers, one query at a time. The caller threads over queries.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/ops/columns.h"
#include "csrc/ops/cpu/top_k.h"

namespace aesg::cpu {

inline constexpr int kEdgesPerBlock = 7;  // as csrc/storage/layout.h

struct SpreadGraph {
  Column<const int32_t> first_block;  // [N], -1: none
  Column<const int32_t> targets;      // [M, 7], -1: none
  Column<const float> strengths;      // [M, 7]
  Column<const int32_t> next_block;   // [M], -1: the chain ends
  Column<const uint8_t> active;       // [N]
  Column<const int32_t> regions;      // [N] or null, 0: no region

  // The region of the first seed, 0: none.
  int32_t dominant_region(const int64_t* seeds, int64_t seed_count) const {
    return regions && seed_count > 0 && seeds[0] >= 0 ? regions[seeds[0]] : 0;
  }
};

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
  // Energies of one query after all hops. Seeds below 0 and inactive ones are left out, of equal ones the
  // strongest counts. REQUIRES: seeds < N; energies finite.
  void run(const SpreadGraph& graph, const SpreadRules& rules, const int64_t* seeds, const float* energies,
           int64_t seed_count);

  // The k strongest of the last run, ties lower slot, padded with 0 and -1.
  void result(int64_t k, float* energies, int64_t* slots);

  // Whether a run met a slot or block outside the graph: the edge data is damaged. Cleared by reading.
  bool take_damage();

 private:
  struct Entry {  // of the hash table, 16 bytes: a touched concept
    int32_t slot;
    uint32_t stamp;  // clock of the last firing that reached it; older than the query: the place is free
    int32_t sum;     // n_j in fixed point, held at kSumLimit
    uint32_t link;   // bit 0: inside the dominant region; above: 1 + place among the sources, 0: none
  };
  struct Source {  // a seed, or a concept that reached the source floor
    float energy;
    float fired;  // energy at which its edges were last counted, 0: never
    int32_t slot;
    int32_t block;  // head of its chain
  };

  void begin();
  void reserve();
  void grow();
  void walk_ahead();
  uint32_t find_place(int32_t slot) const;
  Entry* touch(int32_t slot);
  template <bool kRegions>
  void fire(const Source& source, float now, float before);
  void fetch_head(Source& source);
  void fetch_rest(const Source& source) const;
  int32_t beyond_twins(const Source& source, int32_t target, int32_t block, int place, float now,
                       float before, float factor) const;
  void end_hop(bool last);

  const SpreadGraph* graph_ = nullptr;
  const SpreadRules* rules_ = nullptr;
  int32_t region_ = 0;
  bool damaged_ = false;
  uint32_t clock_ = 0;                       // counts firings, over all queries
  uint32_t query_begin_ = 1;                 // first clock of this query
  uint32_t hop_begin_ = 1;                   // first clock of this hop
  bool direct_ = false;                      // a place is a slot; else open addressing
  size_t ahead_ = 0, ahead_limit_ = 0;       // place in firing_ of the chain walked ahead, and its bound
  int32_t ahead_block_ = -1;                 // where on that chain
  int bits_ = 10;                            // 2^bits_ places of the table are in use
  std::vector<Entry> table_;                 // open addressing
  std::vector<Entry> moved_;                 // while growing
  std::vector<uint32_t> touched_, changed_;  // places: of this query, of this hop
  std::vector<Source> sources_;
  std::vector<uint32_t> firing_, next_firing_;  // sources whose energy changed
  TopK best_;
};

}  // namespace aesg::cpu
