// spread_activation on the CPU. What makes it quick:
//  - What a query touches lies in entries of 8 bytes, one a slot; in a very large graph in a hash table,
//  unless
//    the query touches much of it. They are never cleared: an entry whose stamp is older than the query is
//    free. (Of 16 bytes: 10 % slower at four hops of a power law, where the wait for them is most.)
//  - A hop fires only sources whose energy changed, and adds the difference to what they gave before. Sums
//    are integers and energies never fall, so this is exactly the sum over all sources.
//  - Most chains fire once a call, and are read where they lie, many side by side, since a block is known
//  only
//    when the one before it has come. Copying each first took twice the time; long ones that fire again are
//    copied to one piece (edge_lists.h).
//  - Edges are collected as pieces. What they give is computed eight at a time without branches
//    (spread_give.h), their targets' memory asked for, and only then are the gifts handed out.
//  - Whether a target lives is asked only where it would fire or be among the best.
#include "csrc/ops/cpu/spread_activation.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "csrc/ops/spread_activation_math.h"

namespace aesg::cpu {
namespace {

constexpr uint32_t kHashFactor = 0x9e3779b1u;  // 2^32 / golden ratio: neighbouring slots go far apart
constexpr int kLeastBits = 10;
constexpr size_t kFetched = 128;            // sources whose edges are asked for together
constexpr int32_t kSumCeiling = 1 << 30;    // far above where energy saturates
constexpr int64_t kSmall = 1 << 20;         // up to so many slots each has a place of its own
constexpr uint32_t kClockLimit = 1u << 31;  // far more firings than one query can make

// The smallest sum whose energy is not below this one; more than any sum where energy above 1 is asked for.
AESG_INLINE int32_t least_sum(float energy) {
  return energy > 1.0f ? kSumCeiling + 1 : static_cast<int32_t>(energy * kFixedOne);
}

}  // namespace

void Spreader::begin_call(const SpreadGraph& graph, const SpreadRules& rules) {
  graph_ = graph;
  rules_ = rules;
  lists_.restart(graph);
  near_begin_ = near_end_ = nullptr;
}

void Spreader::begin_query() {
  // About as many places as the last queries wanted: a small table stays in a near cache.
  direct_ = graph_.active.rows <= kSmall ||
            (direct_ && touched_.size() * 8 >= static_cast<size_t>(graph_.active.rows));
  if (bits_ > kLeastBits && (touched_.size() * 8) >> bits_ == 0) --bits_;
  reserve();
  if (clock_ > kClockLimit) {
    for (Entry& entry : table_) entry.stamp = 0;
    clock_ = 0;
  }
  query_begin_ = hop_begin_ = ++clock_;
  touched_.clear();
  changed_.clear();
  sources_.clear();
  firing_.clear();
}

void Spreader::reserve() {
  const size_t places = direct_ ? static_cast<size_t>(graph_.active.rows) : size_t{1} << bits_;
  if (table_.size() < places) {
    table_.resize(places, Entry{0, 0});
    source_at_.resize(places, 0);
  }
  if (!direct_ && slots_.size() < places) slots_.resize(places, 0);
}

AESG_INLINE int32_t Spreader::slot_at(uint32_t place) const {
  return direct_ ? static_cast<int32_t>(place) : slots_[place];
}

// Which source a touched slot is; as many as there are sources: none. What lies in source_at_ may be left
// from another query: then it points to none, or to a source of another slot.
AESG_INLINE uint32_t Spreader::source_at(uint32_t place, int32_t slot) const {
  const uint32_t source = source_at_[place], count = static_cast<uint32_t>(sources_.size());
  return source < count && sources_[source].slot == slot ? source : count;
}

// Doubles the places in use, or gives every slot its own where that is not much more.
void Spreader::grow() {
  moved_.clear();
  for (const uint32_t place : touched_) {
    moved_.push_back({table_[place], slot_at(place), source_at_[place]});
    table_[place].stamp = 0;
  }
  ++bits_;
  direct_ = (int64_t{2} << bits_) >= graph_.active.rows;
  reserve();
  touched_.clear();
  changed_.clear();
  for (const Moved& moved : moved_) {
    const uint32_t place = find_place(moved.slot);
    table_[place] = moved.entry;
    source_at_[place] = moved.source;
    if (!direct_) slots_[place] = moved.slot;
    touched_.push(place);
    if (moved.entry.stamp >= hop_begin_) changed_.push(place);
  }
}

// The place of a slot, or the free one where it belongs.
AESG_INLINE uint32_t Spreader::find_place(int32_t slot) const {
  if (direct_) return static_cast<uint32_t>(slot);
  const uint32_t mask = (1u << bits_) - 1;
  uint32_t place = static_cast<uint32_t>(slot) * kHashFactor >> (32 - bits_);
  while (table_[place].stamp >= query_begin_ && slots_[place] != slot) place = (place + 1) & mask;
  return place;
}

// Makes a seed a source, unless it is dead; of equal ones the strongest counts.
AESG_INLINE void Spreader::touch_seed(int32_t slot, float energy) {
  if (!graph_.active[slot]) return;
  if (!direct_ && (2 * touched_.size() + 2) >> bits_ != 0) grow();
  const uint32_t place = find_place(slot);
  Entry& entry = table_[place];
  if (entry.stamp >= query_begin_) {
    Source& source = sources_[source_at_[place]];
    source.energy = std::max(source.energy, energy);
    return;
  }
  entry = {query_begin_, 0};
  source_at_[place] = static_cast<uint32_t>(sources_.size());
  if (!direct_) slots_[place] = slot;
  sources_.push_back({energy, 0.0f, slot});
  touched_.push(place);
}

// What an edge adds beyond its parallel edges met before it: only the strongest counts. Rare, and therefore
// simply looked up again.
int32_t Spreader::beyond_twins(size_t gift) {
  const int32_t target = gift_targets_[gift];
  const uint32_t firing = gift_firings_[gift], edge = gift_edges_[gift] & ~kInBlocks;
  const int32_t slot = sources_[firing_[firing]].slot;
  float strength = 0.0f, twin = -std::numeric_limits<float>::infinity();
  if (gift_edges_[gift] & kInBlocks) {
    int32_t block = graph_.first_block[slot];
    for (uint32_t e = 0; e <= edge; ++e) {
      if (e != 0 && e % kEdgesPerBlock == 0) block = graph_.next_block[block];
      strength = graph_.strengths.at(block)[e % kEdgesPerBlock];
      if (e != edge && graph_.targets.at(block)[e % kEdgesPerBlock] == target)
        twin = std::max(twin, strength);
    }
  } else {
    const EdgeList list = lists_.get(slot, &damaged_);
    strength = list.strengths[edge];
    for (uint32_t e = 0; e < edge; ++e)
      if (list.targets[e] == target) twin = std::max(twin, list.strengths[e]);
  }
  if (!(strength > twin)) return 0;
  const bool inside = region_ != 0 && graph_.regions[target] == region_;
  const float factor = inside ? rules_.facilitation : 1.0f;
  const auto gives = [&](float energy, float through) {
    return fixed_transfer(transfer(energy, through, rules_.decay, factor), rules_.transfer_floor);
  };
  const float now = sources_[firing_[firing]].fired, before = fired_before_[firing];
  return (gives(now, strength) - gives(now, twin)) - (gives(before, strength) - gives(before, twin));
}

// Adds gifts to the sums of their targets; returns how far it came: the table may be too small. An entry a
// slot needs no search and no branches.
template <bool kDirect>
size_t Spreader::hand_out(size_t first, size_t count) {
  const size_t touched_before = touched_.size();
  uint32_t* touched = touched_.room(count - first);
  uint32_t* changed = changed_.room(count - first);
  const uint32_t query_begin = query_begin_, hop_begin = hop_begin_;
  Entry* table = table_.data();
  size_t touched_now = 0, changed_now = 0;
  for (; first < count; ++first) {
    const int32_t target = gift_targets_[first];
    int32_t amount = gift_amounts_[first];
    uint32_t place = static_cast<uint32_t>(target);
    if constexpr (!kDirect) {
      if (__builtin_expect((2 * (touched_before + touched_now) + 2) >> bits_ != 0, 0)) break;
      place = find_place(target);
    }
    Entry& entry = table[place];
    const uint32_t was = entry.stamp, stamp = hop_begin + gift_firings_[first];
    if (__builtin_expect(was == stamp, 0)) amount = beyond_twins(first);
    const bool is_new = was < query_begin;
    touched[touched_now] = place;
    touched_now += is_new;
    changed[changed_now] = place;
    changed_now += was < hop_begin;
    const uint32_t kept = static_cast<uint32_t>(is_new) - 1;  // all bits, or none
    const int32_t sum = entry.sum & static_cast<int32_t>(kept);
    entry = {stamp, std::min(sum + amount, kSumCeiling)};
    if constexpr (!kDirect) slots_[place] = target;
  }
  touched_.take(touched_now);
  changed_.take(changed_now);
  return first;
}

void Spreader::flush() {
  const GiveRules how{&rules_, static_cast<int32_t>(graph_.active.rows), region_, graph_.regions};
  const Gifts gifts{gift_targets_, gift_amounts_, gift_firings_, gift_edges_};
  const size_t count = give(pieces_, piece_count_, how, gifts, &damaged_);
  piece_count_ = 0;
  // All targets' memory is asked for before the first is added to.
  const Entry* table = table_.data();
  const int shift = direct_ ? 0 : 32 - bits_;
  const uint32_t factor = direct_ ? 1 : kHashFactor;
  for (size_t i = 0; i < count; ++i)
    __builtin_prefetch(table + (static_cast<uint32_t>(gift_targets_[i]) * factor >> shift), 1);
  for (size_t first = 0; first < count;) {
    first = direct_ ? hand_out<true>(first, count) : hand_out<false>(first, count);
    if (first < count) grow();
  }
}

// The edges of one block, the first of which is the chain's `edge`-th.
AESG_INLINE void Spreader::fire_block(int32_t block, const EdgePiece& source, uint32_t edge) {
  if (__builtin_expect(piece_count_ == kMostPieces, 0)) flush();
  EdgePiece& piece = pieces_[piece_count_++];
  piece = source;
  piece.targets = graph_.targets.at(block);
  piece.strengths = graph_.strengths.at(block);
  piece.edge = edge | kInBlocks;
}

void Spreader::fire_list(int32_t slot, EdgePiece piece) {
  if (!lists_.is_known(slot)) flush();  // making one may move those that pieces point into
  if (__builtin_expect(lists_.is_full(), 0)) {
    flush();
    lists_.restart(graph_);
  }
  const EdgeList list = lists_.get(slot, &damaged_);
  for (piece.edge = 0; piece.edge < list.size; piece.edge += kEdgesTogether) {
    if (__builtin_expect(piece_count_ == kMostPieces, 0)) flush();
    piece.targets = list.targets + piece.edge;
    piece.strengths = list.strengths + piece.edge;
    pieces_[piece_count_++] = piece;
  }
}

// A chain of three blocks or more: block by block, or, from the second time on, from a copy.
void Spreader::fire_long(int32_t slot, int32_t head, EdgePiece piece) {
  if (lists_.meet(slot)) return fire_list(slot, piece);
  int32_t mark = -1;  // a block met before: a chain that comes back to it is a ring
  uint32_t steps = 0, next_mark = 1;
  for (int32_t block = head; block != -1; block = graph_.next_block[block]) {
    if (!graph_.has_block(block) || block == mark) {
      damaged_ = true;
      return;
    }
    if (steps + 1 == next_mark) {
      mark = block;
      next_mark *= 2;
    }
    fire_block(block, piece, steps++ * kEdgesPerBlock);
  }
}

// A piece without edges yet.
AESG_INLINE EdgePiece Spreader::begin_firing(size_t firing) {
  Source& source = sources_[firing_[firing]];
  const float before = source.fired;
  fired_before_[firing] = before;
  source.fired = source.energy;
  return {nullptr, nullptr, source.energy, before, static_cast<uint32_t>(firing), 0};
}

// Fires sources side by side, so that the memory of many comes at a time: where their chains begin, the first
// blocks, the second ones. Longer chains wait and are then walked together.
void Spreader::fire_some(size_t first, size_t count) {
  int32_t slots[kFetched], heads[kFetched], seconds[kFetched], rests[kFetched];
  uint32_t longs[kFetched];
  for (size_t i = 0; i < count; ++i) {
    slots[i] = sources_[firing_[first + i]].slot;
    __builtin_prefetch(graph_.first_block.at(slots[i]));
  }
  for (size_t i = 0; i < count; ++i) {
    heads[i] = graph_.first_block[slots[i]];
    if (graph_.has_block(heads[i])) __builtin_prefetch(graph_.targets.at(heads[i]));
  }
  for (size_t i = 0; i < count; ++i) {
    seconds[i] = graph_.has_block(heads[i]) ? graph_.next_block[heads[i]] : -1;
    if (graph_.has_block(seconds[i])) __builtin_prefetch(graph_.targets.at(seconds[i]));
  }
  size_t long_count = 0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t head = heads[i], second = seconds[i];
    const bool has_second = graph_.has_block(second);
    if (has_second && graph_.next_block[second] != -1) {
      lists_.fetch_place(slots[i]);
      longs[long_count++] = static_cast<uint32_t>(i);
      continue;
    }
    const EdgePiece source = begin_firing(first + i);
    if (__builtin_expect(!graph_.has_block(head) || (second != -1 && !has_second), 0)) damaged_ |= head != -1;
    if (!graph_.has_block(head)) continue;
    fire_block(head, source, 0);
    if (has_second) fire_block(second, source, kEdgesPerBlock);
  }
  if (long_count == 0) return;
  for (size_t i = 0; i < long_count; ++i) {
    const int32_t slot = slots[longs[i]];
    const bool known = lists_.is_known(slot);
    if (known) lists_.fetch_list(slot);
    rests[i] = known ? -1 : graph_.next_block[seconds[longs[i]]];
  }
  if (!near_) graph_.fetch_chains(rests, long_count);
  for (size_t i = 0; i < long_count; ++i)
    fire_long(slots[longs[i]], heads[longs[i]], begin_firing(first + longs[i]));
}

void Spreader::fire_all() {
  const size_t count = firing_.size();
  if (fired_before_.size() < count) fired_before_.resize(2 * count);
  for (size_t first = 0; first < count; first += kFetched) {
    fire_some(first, std::min(kFetched, count - first));
  }
  flush();
  clock_ += static_cast<uint32_t>(count);
}

// Lets energies rise to what arrived, and finds the sources of the next hop.
void Spreader::end_hop() {
  next_firing_.clear();
  for (const uint32_t place : changed_) {
    const float energy = fixed_energy(table_[place].sum);
    if (energy < rules_.source_floor) continue;
    const int32_t slot = slot_at(place);
    const uint32_t source = source_at(place, slot);
    if (source == sources_.size()) {
      // The dead are sorted out here and among the results, not for every edge.
      if (!graph_.active[slot]) continue;
      source_at_[place] = source;
      sources_.push_back({energy, 0.0f, slot});
    } else if (energy > sources_[source].energy) {
      sources_[source].energy = energy;
    } else {
      continue;
    }
    next_firing_.push_back(source);
  }
  firing_.swap(next_firing_);
}

void Spreader::run(const int64_t* seeds, const float* energies, int64_t seed_count) {
  region_ = rules_.facilitation == 1.0f ? 0 : graph_.dominant_region(seeds, seed_count);
  begin_query();
  for (int64_t s = 0; s < seed_count; ++s) {
    if (seeds[s] < 0 || !(energies[s] > 0.0f)) continue;
    touch_seed(static_cast<int32_t>(seeds[s]), energies[s]);
  }
  seeds_touched_ = touched_.size();
  for (uint32_t i = 0; i < sources_.size(); ++i)
    if (sources_[i].energy >= rules_.source_floor) firing_.push_back(i);

  for (int64_t hop = 0; hop < rules_.hops && !firing_.empty(); ++hop) {
    hop_begin_ = clock_ + 1;
    near_ = hop == 0 && seeds >= near_begin_ && seeds + seed_count <= near_end_;
    changed_.clear();
    fire_all();
    if (hop + 1 < rules_.hops) end_hop();
  }
}

void Spreader::look_ahead(const int64_t* seeds, int64_t count) {
  int32_t heads[kSeedsAhead];
  count = std::min(count, kSeedsAhead);
  near_begin_ = seeds;
  near_end_ = seeds + count;
  for (int64_t s = 0; s < count; ++s)
    if (seeds[s] >= 0) __builtin_prefetch(graph_.first_block.at(seeds[s]));
  for (int64_t s = 0; s < count; ++s) heads[s] = seeds[s] >= 0 ? graph_.first_block[seeds[s]] : -1;
  graph_.fetch_chains(heads, static_cast<size_t>(count));
}

// Calls visit(energy, slot) for all that were touched, the dead included, unless less than least() arrived
// there. Energies are positive.
template <typename Least, typename Visit>
AESG_INLINE void Spreader::visit_touched(const Least& least, const Visit& visit) const {
  // Seeds are the first sources; their energy may be more than what arrived.
  const uint32_t* place = touched_.begin();
  for (size_t i = 0; i < seeds_touched_; ++i, ++place)
    visit(std::max(fixed_energy(table_[*place].sum), sources_[i].energy), sources_[i].slot);
  const Entry* table = table_.data();
  for (const uint32_t* end = touched_.end(); place != end; ++place)
    if (table[*place].sum >= least()) visit(fixed_energy(table[*place].sum), slot_at(*place));
}

void Spreader::result(int64_t k, float* energies, int64_t* slots) {
  if (k <= 10) {
    if (!few_result<5, true>(k, energies, slots)) few_result<5, false>(k, energies, slots);
    return;
  }
  if (k <= 16) {
    if (!few_result<8, true>(k, energies, slots)) few_result<8, false>(k, energies, slots);
    return;
  }
  best_.reset(std::min<int64_t>(k, static_cast<int64_t>(touched_.size())));
  float bar = 0.0f;
  visit_touched([] { return 0; },
                [&](float energy, int32_t slot) {
                  if (energy < bar || !graph_.active[slot]) return;
                  best_.push({energy, slot});
                  if (best_.full()) bar = best_.last().score;
                });
  const std::vector<Scored>& found = best_.sorted();
  for (int64_t i = 0; i < k; ++i) {
    const bool there = i < static_cast<int64_t>(found.size());
    energies[i] = there ? found[i].score : 0.0f;
    slots[i] = there ? found[i].slot : -1;
  }
}

// With kAllLive none is asked whether it lives but the best in the end; false: one of them does not.
template <int kPairs, bool kAllLive>
bool Spreader::few_result(int64_t k, float* energies, int64_t* slots) const {
  FewBest<kPairs> best;
  if (touched_.size() <= 64) {  // among a dozen, which are the best cannot be foretold: all are put in place
    visit_touched([] { return 0; },
                  [&](float energy, int32_t slot) {
                    best.push(FewBest<kPairs>::key(energy, slot, kAllLive || graph_.active[slot] != 0));
                  });
  } else {
    double bar = 0.0;
    int32_t least = 0;  // the smallest sum whose energy is not below the bar's
    visit_touched([&] { return least; },
                  [&](float energy, int32_t slot) {
                    const double key = FewBest<kPairs>::key(energy, slot);
                    if (!(key > bar) || !(kAllLive || graph_.active[slot])) return;
                    best.push(key);
                    bar = best.last();
                    least = least_sum(FewBest<kPairs>::score(bar));
                  });
  }
  best.write(k, energies, slots);
  bool live = true;
  for (int64_t i = 0; kAllLive && i < k; ++i) live &= slots[i] < 0 || graph_.active[slots[i]] != 0;
  return live;
}

bool Spreader::take_damage() {
  const bool was = damaged_;
  damaged_ = false;
  return was;
}

}  // namespace aesg::cpu
