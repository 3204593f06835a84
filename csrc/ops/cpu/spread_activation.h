// CPU kernel of spread_activation on plain pointers, one query at a time. The caller threads over queries.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/ops/cpu/edge_lists.h"
#include "csrc/ops/cpu/spread_give.h"
#include "csrc/ops/cpu/top_k.h"

namespace aesg::cpu {

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
  struct Entry {     // of the table, 8 bytes: a touched concept
    uint32_t stamp;  // clock of the last firing that reached it; older than the query: the place is free
    int32_t sum;     // n_j in fixed point, held at kSumCeiling
  };
  struct Source {  // a seed, or a concept that reached the source floor
    float energy;
    float fired;  // energy at which its edges were last counted, 0: never
    int32_t slot;
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
  static constexpr size_t kMostPieces = 64;  // on their way at a time
  static constexpr size_t kMostGifts = (kMostPieces + 1) * kEdgesTogether;

  void begin_query();
  void reserve();
  void grow();
  uint32_t find_place(int32_t slot) const;
  int32_t slot_at(uint32_t place) const;
  uint32_t source_at(uint32_t place, int32_t slot) const;
  void touch_seed(int32_t slot, float energy);
  void fire_all();
  void fire_some(size_t first, size_t count);
  void fire_long(int32_t slot, int32_t head, EdgePiece piece);
  void fire_list(int32_t slot, EdgePiece piece);
  EdgePiece begin_firing(size_t firing);
  void fire_block(int32_t block, const EdgePiece& source, uint32_t edge);
  void flush();
  template <bool kDirect>
  size_t hand_out(size_t first, size_t count);
  int32_t beyond_twins(size_t gift);
  void end_hop();
  template <typename Least, typename Visit>
  void visit_touched(const Least& least, const Visit& visit) const;
  template <int kPairs, bool kAllLive>
  bool few_result(int64_t k, float* energies, int64_t* slots) const;

  SpreadGraph graph_;
  SpreadRules rules_{};
  EdgeLists lists_;
  int32_t region_ = 0;
  bool damaged_ = false;
  uint32_t clock_ = 0;        // counts firings, over all queries
  uint32_t query_begin_ = 1;  // first clock of this query
  uint32_t hop_begin_ = 1;    // first clock of this hop
  bool direct_ = false;       // a place is a slot; else open addressing
  int bits_ = 10;             // 2^bits_ places of the table are in use
  std::vector<Entry> table_;
  std::vector<int32_t> slots_;       // of the places, for open addressing
  std::vector<uint32_t> source_at_;  // of the places: which source, if that is of this slot
  struct Moved {
    Entry entry;
    int32_t slot;
    uint32_t source;
  };
  std::vector<Moved> moved_;  // while growing
  Places touched_, changed_;  // of this query, its seeds first; of this hop
  size_t seeds_touched_ = 0;
  const int64_t *near_begin_ = nullptr, *near_end_ = nullptr;  // seeds whose chains are near
  bool near_ = false;                                          // all that fire now have theirs near
  std::vector<Source> sources_;
  std::vector<uint32_t> firing_, next_firing_;  // sources whose energy changed
  std::vector<float> fired_before_;             // of firing_: energy when last fired
  EdgePiece pieces_[kMostPieces];
  size_t piece_count_ = 0;
  alignas(64) int32_t gift_targets_[kMostGifts], gift_amounts_[kMostGifts];
  alignas(64) uint32_t gift_firings_[kMostGifts], gift_edges_[kMostGifts];
  TopK best_;
};

}  // namespace aesg::cpu
