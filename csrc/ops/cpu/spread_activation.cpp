// spread_activation on the CPU. What makes it quick:
//  - What a query touches lives in entries of 16 bytes, one a slot; in a large graph in a hash table, unless
//    the query touches much of it. They are never cleared: an entry whose stamp is older than the query is
//    free.
//  - A hop fires only sources whose energy changed, and adds the difference to what they gave before. Sums
//    are integers and energies never fall, so this is exactly the sum over all sources.
//  - A chain of blocks is read once a call and copied to one piece (edge_lists.h).
//  - Firing computes what edges give, four at a time, and only asks for their targets' memory; some hundred
//    gifts later they are handed out, when it has come.
#include "csrc/ops/cpu/spread_activation.h"

#include <algorithm>
#include <limits>

#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/spread_activation_math.h"

namespace aesg::cpu {
namespace {

constexpr uint32_t kHashFactor = 0x9e3779b1u;  // 2^32 / golden ratio: neighbouring slots go far apart
constexpr int kLeastBits = 10;
constexpr size_t kFetched = 128;            // sources whose edges are asked for together
constexpr size_t kMostGifts = 256;          // on their way at a time
constexpr int32_t kSumCeiling = 1 << 30;    // far above where energy saturates
constexpr int64_t kSmall = 1 << 20;         // up to so many slots each has a place of its own
constexpr uint32_t kClockLimit = 1u << 31;  // far more firings than one query can make

using Four = Portable;

// What four edges give, in fixed point: 0 where the floor is not passed.
AESG_INLINE Four::Mask give(const float* strengths, float energy, const SpreadRules& rules) {
  const Four::Vec x =
      Four::mul(Four::mul(Four::splat(energy), Four::load(strengths)), Four::splat(rules.decay));
  const Four::Vec limited = Four::min(x, Four::splat(kLargestTransfer));
  return Four::nearest(Four::mul(limited, Four::splat(kFixedOne))) &
         Four::greater(x, Four::splat(rules.transfer_floor));
}

}  // namespace

void Spreader::begin_call(const SpreadGraph& graph, const SpreadRules& rules) {
  graph_ = graph;
  rules_ = rules;
  lists_.restart(graph);
  gifts_.resize(kMostGifts + kEdgesTogether);
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
  if (table_.size() < places) table_.resize(places, Entry{0, 0, 0, 0});
}

// Doubles the places in use, or gives every slot its own where that is not much more.
void Spreader::grow() {
  moved_.clear();
  for (const uint32_t place : touched_) {
    moved_.push_back(table_[place]);
    table_[place].stamp = 0;
  }
  ++bits_;
  direct_ = (int64_t{2} << bits_) >= graph_.active.rows;
  reserve();
  touched_.clear();
  changed_.clear();
  for (const Entry& entry : moved_) {
    const uint32_t place = find_place(entry.slot);
    table_[place] = entry;
    touched_.push_back(place);
    if (entry.stamp >= hop_begin_) changed_.push_back(place);
  }
}

// The place of a slot, or the free one where it belongs.
AESG_INLINE uint32_t Spreader::find_place(int32_t slot) const {
  if (direct_) return static_cast<uint32_t>(slot);
  const uint32_t mask = (1u << bits_) - 1;
  uint32_t place = static_cast<uint32_t>(slot) * kHashFactor >> (32 - bits_);
  while (table_[place].stamp >= query_begin_ && table_[place].slot != slot) place = (place + 1) & mask;
  return place;
}

// The entry of a seed, made if need be; null for a dead one.
Spreader::Entry* Spreader::touch_seed(int32_t slot) {
  if (!graph_.active[slot]) return nullptr;
  if (!direct_ && (2 * touched_.size() + 2) >> bits_ != 0) grow();
  const uint32_t place = find_place(slot);
  Entry* entry = &table_[place];
  if (entry->stamp >= query_begin_) return entry;
  *entry = {slot, query_begin_, 0, 0};
  touched_.push_back(place);
  return entry;
}

// What an edge adds beyond its parallel edges met before it in the list: only the strongest counts. Rare, and
// therefore simply looked up again.
int32_t Spreader::beyond_twins(const Gift& gift) {
  const Source& source = sources_[firing_[gift.firing]];
  const EdgeList list = lists_.get(source.slot, &damaged_);
  const float strength = list.strengths[gift.edge];
  float twin = -std::numeric_limits<float>::infinity();
  for (uint32_t e = 0; e < gift.edge; ++e)
    if (list.targets[e] == gift.target) twin = std::max(twin, list.strengths[e]);
  if (!(strength > twin)) return 0;
  const bool inside = region_ != 0 && graph_.regions[gift.target] == region_;
  const float factor = inside ? rules_.facilitation : 1.0f;
  const auto gives = [&](float energy, float through) {
    return fixed_transfer(transfer(energy, through, rules_.decay, factor), rules_.transfer_floor);
  };
  const float now = source.fired, before = fired_before_[gift.firing];
  return (gives(now, strength) - gives(now, twin)) - (gives(before, strength) - gives(before, twin));
}

// Adds the gifts to the sums of their targets. An entry a slot needs no search and no branches.
template <bool kDirect>
void Spreader::hand_out() {
  const size_t touched = touched_.size(), changed = changed_.size();
  size_t first = 0, touched_now = touched, changed_now = changed;
  touched_.resize(touched + gift_count_);
  changed_.resize(changed + gift_count_);
  for (; first < gift_count_; ++first) {
    Gift& gift = gifts_[first];
    uint32_t place = static_cast<uint32_t>(gift.target);
    if constexpr (!kDirect) {
      if (__builtin_expect((2 * touched_now + 2) >> bits_ != 0, 0)) break;
      place = find_place(gift.target);
    }
    Entry& entry = table_[place];
    const uint32_t was = entry.stamp, stamp = hop_begin_ + gift.firing;
    if (__builtin_expect(was == stamp, 0)) gift.amount = beyond_twins(gift);
    const bool is_new = was < query_begin_;
    touched_[touched_now] = place;
    touched_now += is_new;
    changed_[changed_now] = place;
    changed_now += was < hop_begin_;
    const int32_t sum = is_new ? 0 : entry.sum;
    entry.slot = gift.target;
    entry.stamp = stamp;
    entry.sum = std::min(sum + gift.amount, kSumCeiling);
    entry.source = is_new ? 0 : entry.source;
  }
  touched_.resize(touched_now);
  changed_.resize(changed_now);
  // What is left when the table was too small.
  std::copy(gifts_.begin() + first, gifts_.begin() + gift_count_, gifts_.begin());
  gift_count_ -= first;
}

void Spreader::flush() {
  while (gift_count_ != 0) {
    if (direct_) {
      hand_out<true>();
    } else {
      hand_out<false>();
      if (gift_count_ != 0) grow();
    }
  }
}

// Computes what a source's edges give.
template <bool kRegions>
AESG_INLINE void Spreader::fire(uint32_t firing) {
  Source& source = sources_[firing_[firing]];
  const float now = source.energy, before = source.fired;
  source.fired = now;
  fired_before_[firing] = before;
  if (__builtin_expect(lists_.is_full(), 0)) {
    flush();
    lists_.restart(graph_);
  }
  const EdgeList list = lists_.get(source.slot, &damaged_);
  const Entry* table = table_.data();
  int shift = direct_ ? 0 : 32 - bits_;
  uint32_t factor = direct_ ? 1 : kHashFactor;
  for (uint32_t e = 0; e < list.size; e += kEdgesTogether) {
    const int32_t* targets = list.targets + e;
    const float* strengths = list.strengths + e;
    if (__builtin_expect(gift_count_ + kEdgesTogether > kMostGifts, 0)) {
      flush();
      table = table_.data();
      shift = direct_ ? 0 : 32 - bits_;
      factor = direct_ ? 1 : kHashFactor;
    }
    alignas(16) int32_t amounts[4];
    uint32_t carried;
    if constexpr (kRegions) {
      carried = 0;
      for (uint32_t i = 0; i < 4; ++i) {
        const bool inside = graph_.regions[targets[i]] == region_;
        const float reach = inside ? rules_.facilitation : 1.0f;
        const auto gives = [&](float energy) {
          return fixed_transfer(transfer(energy, strengths[i], rules_.decay, reach), rules_.transfer_floor);
        };
        const int32_t given = gives(now);
        carried |= static_cast<uint32_t>(given > 0) << i;
        amounts[i] = before > 0.0f ? given - gives(before) : given;
      }
    } else {
      const Four::Mask given = give(strengths, now, rules_);
      carried = Four::bits(given > 0);
      Four::store(amounts, before > 0.0f ? given - give(strengths, before, rules_) : given);
    }
    Gift* gifts = gifts_.data();
    size_t count = gift_count_;
    for (uint32_t i = 0; i < 4; ++i) {  // without branches: what is not carried is written over
      const int32_t target = targets[i];
      __builtin_prefetch(table + (static_cast<uint32_t>(target) * factor >> shift), 1);
      gifts[count] = {target, amounts[i], firing, e + i};
      count += carried >> i & 1;
    }
    gift_count_ = count;
  }
}

void Spreader::fire_all() {
  const size_t count = firing_.size();
  fired_before_.resize(std::max(fired_before_.size(), count));
  int32_t slots[kFetched];
  for (size_t first = 0; first < count; first += kFetched) {
    const size_t some = std::min(kFetched, count - first);
    for (size_t i = 0; i < some; ++i) slots[i] = sources_[firing_[first + i]].slot;
    lists_.fetch(slots, some);
    for (size_t i = first; i < first + some; ++i) {
      if (region_ != 0) {
        fire<true>(static_cast<uint32_t>(i));
      } else {
        fire<false>(static_cast<uint32_t>(i));
      }
    }
  }
  flush();
  clock_ += static_cast<uint32_t>(count);
}

// Lets energies rise to what arrived, and finds the sources of the next hop.
void Spreader::end_hop() {
  next_firing_.clear();
  for (const uint32_t place : changed_) {
    Entry& entry = table_[place];
    const float energy = fixed_energy(entry.sum);
    if (energy < rules_.source_floor) continue;
    if (entry.source == 0) {
      sources_.push_back({energy, 0.0f, entry.slot});
      entry.source = static_cast<uint32_t>(sources_.size());
    } else if (energy > sources_[entry.source - 1].energy) {
      sources_[entry.source - 1].energy = energy;
    } else {
      continue;
    }
    next_firing_.push_back(entry.source - 1);
  }
  firing_.swap(next_firing_);
}

void Spreader::run(const int64_t* seeds, const float* energies, int64_t seed_count) {
  region_ = rules_.facilitation == 1.0f ? 0 : graph_.dominant_region(seeds, seed_count);
  begin_query();
  for (int64_t s = 0; s < seed_count; ++s) {
    if (seeds[s] < 0 || !(energies[s] > 0.0f)) continue;
    Entry* entry = touch_seed(static_cast<int32_t>(seeds[s]));
    if (entry == nullptr) continue;
    if (entry->source == 0) {
      sources_.push_back({energies[s], 0.0f, entry->slot});
      entry->source = static_cast<uint32_t>(sources_.size());
    } else {
      Source& source = sources_[entry->source - 1];
      source.energy = std::max(source.energy, energies[s]);
    }
  }
  for (uint32_t i = 0; i < sources_.size(); ++i)
    if (sources_[i].energy >= rules_.source_floor) firing_.push_back(i);

  for (int64_t hop = 0; hop < rules_.hops && !firing_.empty(); ++hop) {
    hop_begin_ = clock_ + 1;
    changed_.clear();
    fire_all();
    if (hop + 1 < rules_.hops) end_hop();
  }
}

void Spreader::result(int64_t k, float* energies, int64_t* slots) {
  best_.reset(std::min<int64_t>(k, static_cast<int64_t>(touched_.size())));
  float bar = 0.0f;
  for (const uint32_t place : touched_) {
    const Entry& entry = table_[place];
    // Sums that arrived in the last hop were not made energies yet.
    float energy = fixed_energy(entry.sum);
    if (entry.source != 0) energy = std::max(energy, sources_[entry.source - 1].energy);
    if (energy < bar || energy <= 0.0f) continue;
    best_.push({energy, entry.slot});
    if (best_.full()) bar = best_.last().score;
  }
  const std::vector<Scored>& found = best_.sorted();
  for (int64_t i = 0; i < k; ++i) {
    const bool there = i < static_cast<int64_t>(found.size());
    energies[i] = there ? found[i].score : 0.0f;
    slots[i] = there ? found[i].slot : -1;
  }
}

bool Spreader::take_damage() {
  const bool was = damaged_;
  damaged_ = false;
  return was;
}

}  // namespace aesg::cpu
