// CPU kernel of spread_activation on plain pointers, one query at a time. The caller threads over queries.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/ops/cpu/edge_lists.h"
#include "csrc/ops/cpu/simd.h"
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

  // Brings the chains of the next runs' seeds near, all at a time. Worth while for kSeedsAhead of them.
  void look_ahead(const int64_t* seeds, int64_t count);
  static constexpr int64_t kSeedsAhead = 64;

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
    uint32_t edge;    // place in the source's list, or, with kInBlocks, in its chain
  };
  struct Firing {
    float now, before;  // energy of the source, and when it last fired
    uint32_t place;     // in firing_
  };
  class Places {  // of the table, and room for more behind them
   public:
    void clear() { size_ = 0; }
    size_t size() const { return size_; }
    const uint32_t* begin() const { return places_.data(); }
    const uint32_t* end() const { return places_.data() + size_; }
    void push(uint32_t place) { *room(1) = place, ++size_; }
    uint32_t* room(size_t more) {
      if (places_.size() < size_ + more) places_.resize(2 * (size_ + more));
      return places_.data() + size_;
    }
    void take(size_t more) { size_ += more; }

   private:
    std::vector<uint32_t> places_;
    size_t size_ = 0;
  };
  static constexpr uint32_t kInBlocks = 1u << 31;

  void begin_query();
  void reserve();
  void grow();
  uint32_t find_place(int32_t slot) const;
  Entry* touch_seed(int32_t slot);
  void fire_all();
  template <bool kRegions>
  void fire_some(size_t first, size_t count);
  Firing begin_firing(uint32_t place);
  template <bool kRegions>
  void fire_block(int32_t block, const Firing& firing, uint32_t edge);
  template <bool kRegions>
  void fire_long(int32_t slot, int32_t head, const Firing& firing);
  template <bool kRegions>
  void give_four(const int32_t* targets, const float* strengths, Portable::Mask used, const Firing& firing,
                 uint32_t edge);
  template <bool kDirect>
  void hand_out();
  void flush();
  int32_t beyond_twins(const Gift& gift);
  void end_hop();
  template <typename Visit>
  void visit_touched(const Visit& visit) const;
  template <int kPairs, bool kAllLive>
  bool few_result(int64_t k, float* energies, int64_t* slots) const;

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
  Places touched_, changed_;                 // of this query, its seeds first; of this hop
  size_t seeds_touched_ = 0;
  const int64_t *near_begin_ = nullptr, *near_end_ = nullptr;  // seeds whose chains are near
  bool near_ = false;                                          // all that fire now have theirs near
  std::vector<Source> sources_;
  std::vector<uint32_t> firing_, next_firing_;  // sources whose energy changed
  std::vector<float> fired_before_;             // of firing_: energy when last fired
  std::vector<Gift> gifts_;                     // on their way to their targets
  size_t gift_count_ = 0;
  TopK best_;
};

}  // namespace aesg::cpu
