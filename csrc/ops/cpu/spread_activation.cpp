// spread_activation on the CPU. Three things make it quick:
//  - What a query touches lives in one small hash table of 16-byte entries, which stays in the nearest cache
//    and is never cleared: an entry whose stamp is older than the query is free. A query that touches much of
//    the graph has an entry a slot instead.
//  - A hop fires only sources whose energy changed, and adds the difference to what they gave before. Sums
//    are integers and energies never fall, so this is exactly the sum over all sources.
//  - Edges are taken a block at a time; most end at the comparison with the transfer floor. While one chain
//  is
//    read, the next ones are walked ahead, a block for each block: long scattered chains are then no wait.
#include "csrc/ops/cpu/spread_activation.h"

#include <algorithm>
#include <limits>

#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/spread_activation_math.h"

namespace aesg::cpu {
namespace {

constexpr uint32_t kHashFactor = 0x9e3779b1u;  // 2^32 / golden ratio: neighbouring slots go far apart
constexpr int kLeastBits = 10;
constexpr size_t kHeadAhead = 12, kRestAhead = 6;  // sources whose memory is asked for before their turn
constexpr uint32_t kClockLimit = 1u << 31;         // far more firings than one query can make

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

void Spreader::begin() {
  // As many places as the last query would have wanted: a small table stays in the nearest cache.
  direct_ = direct_ && touched_.size() * 8 >= static_cast<size_t>(graph_->active.rows);
  while (bits_ > kLeastBits && (touched_.size() * 8) >> bits_ == 0) --bits_;
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
  const size_t places = direct_ ? static_cast<size_t>(graph_->active.rows) : size_t{1} << bits_;
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
  direct_ = (int64_t{2} << bits_) >= graph_->active.rows;
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

// The entry of a slot, made if need be; null for a dead one, which energy never reaches.
AESG_INLINE Spreader::Entry* Spreader::touch(int32_t slot) {
  uint32_t place = find_place(slot);
  Entry* entry = &table_[place];
  if (entry->stamp >= query_begin_) return entry;
  if (!graph_->active[slot]) return nullptr;
  if (!direct_ && (2 * touched_.size() + 2) >> bits_ != 0) {
    grow();
    place = find_place(slot);
    entry = &table_[place];
  }
  const bool inside = region_ != 0 && graph_->regions[slot] == region_;
  *entry = {slot, query_begin_, 0, inside ? 1u : 0u};
  touched_.push_back(place);
  return entry;
}

// What an edge adds beyond its parallel edges met before it in the chain: only the strongest counts. Rare,
// and therefore simply looked up again.
int32_t Spreader::beyond_twins(const Source& source, int32_t target, int32_t block, int place, float now,
                               float before, float factor) const {
  const float strength = graph_->strengths.at(block)[place];
  float twin = -std::numeric_limits<float>::infinity();
  for (int32_t b = source.block;; b = graph_->next_block[b]) {
    for (int i = 0; i < (b == block ? place : kEdgesPerBlock); ++i)
      if (graph_->targets.at(b)[i] == target) twin = std::max(twin, graph_->strengths.at(b)[i]);
    if (b == block) break;
  }
  if (!(strength > twin)) return 0;
  const auto gives = [&](float energy, float through) {
    return fixed_transfer(transfer(energy, through, rules_->decay, factor), rules_->transfer_floor);
  };
  return (gives(now, strength) - gives(now, twin)) - (gives(before, strength) - gives(before, twin));
}

// One block further along the chains of the sources to come, of those whose head was fetched.
AESG_INLINE void Spreader::walk_ahead() {
  if (static_cast<uint32_t>(ahead_block_) < static_cast<uint32_t>(graph_->next_block.rows)) {
    ahead_block_ = graph_->next_block[ahead_block_];
    if (static_cast<uint32_t>(ahead_block_) < static_cast<uint32_t>(graph_->next_block.rows))
      __builtin_prefetch(graph_->targets.at(ahead_block_));
  } else if (ahead_ + 1 < ahead_limit_) {
    ahead_block_ = sources_[firing_[++ahead_]].block;
  }
}

template <bool kRegions>
void Spreader::fire(const Source& source, float now, float before) {
  const SpreadGraph& graph = *graph_;
  const SpreadRules& rules = *rules_;
  const uint32_t stamp = ++clock_;
  const uint32_t slots = static_cast<uint32_t>(graph.active.rows);
  const uint32_t blocks = static_cast<uint32_t>(graph.next_block.rows);
  const float widest = kRegions ? std::max(1.0f, rules.facilitation) : 1.0f;
  uint32_t steps = blocks;  // a chain longer than all blocks is a ring
  for (int32_t block = source.block, next; block != -1; block = next) {
    if (static_cast<uint32_t>(block) >= blocks || steps-- == 0) {
      damaged_ = true;
      return;
    }
    const int32_t* targets = graph.targets.at(block);
    const float* strengths = graph.strengths.at(block);
    next = graph.next_block[block];
    if (static_cast<uint32_t>(next) < blocks) __builtin_prefetch(graph.targets.at(next));
    walk_ahead();

    int32_t more[kEdgesPerBlock];
    uint32_t carried;
    if constexpr (kRegions) {  // whether an edge carries anything may depend on where it leads
      carried = 0;
      for (int i = 0; i < kEdgesPerBlock; ++i)
        carried |=
            static_cast<uint32_t>(transfer(now, strengths[i], rules.decay, widest) > rules.transfer_floor)
            << i;
    } else {  // seven edges as two overlapping fours
      const Four::Mask low = give(strengths, now, rules), high = give(strengths + 3, now, rules);
      carried = Four::bits(low > 0) | Four::bits(high > 0) << 3;
      if (before > 0.0f) {
        Four::store(more, low - give(strengths, before, rules));
        Four::store(more + 3, high - give(strengths + 3, before, rules));
      } else {
        Four::store(more, low);
        Four::store(more + 3, high);
      }
    }
    for (; carried != 0; carried &= carried - 1) {
      const int i = __builtin_ctz(carried);
      const int32_t target = targets[i];
      if (__builtin_expect(static_cast<uint32_t>(target) >= slots, 0)) {
        damaged_ |= target != -1;
        continue;
      }
      Entry* entry = touch(target);
      if (entry == nullptr) continue;
      float factor = 1.0f;
      if constexpr (kRegions) {
        factor = entry->link & 1 ? rules.facilitation : 1.0f;
        more[i] = fixed_transfer(transfer(now, strengths[i], rules.decay, factor), rules.transfer_floor);
        if (more[i] == 0) continue;
        if (before > 0.0f)
          more[i] -=
              fixed_transfer(transfer(before, strengths[i], rules.decay, factor), rules.transfer_floor);
      }
      if (__builtin_expect(entry->stamp == stamp, 0))
        more[i] = beyond_twins(source, target, block, i, now, before, factor);
      if (entry->stamp < hop_begin_) changed_.push_back(static_cast<uint32_t>(entry - table_.data()));
      entry->stamp = stamp;
      entry->sum = std::min(entry->sum + more[i], kSumLimit);
    }
  }
}

// Memory is scattered: the head of a chain is asked for some sources ahead, and when it has come, what it
// names.
AESG_INLINE void Spreader::fetch_head(Source& source) {
  source.block = graph_->first_block[source.slot];
  if (source.block < 0 || source.block >= graph_->next_block.rows) return;
  __builtin_prefetch(graph_->targets.at(source.block));
}

AESG_INLINE void Spreader::fetch_rest(const Source& source) const {
  if (source.block < 0 || source.block >= graph_->next_block.rows) return;
  const int32_t next = graph_->next_block[source.block];
  if (next >= 0 && next < graph_->next_block.rows) __builtin_prefetch(graph_->targets.at(next));
}

// Lets energies rise to what arrived, and finds the sources of the next hop.
void Spreader::end_hop(bool last) {
  next_firing_.clear();
  for (const uint32_t place : changed_) {
    Entry& entry = table_[place];
    const float energy = fixed_energy(entry.sum);
    uint32_t source = entry.link >> 1;
    if (source == 0) {
      if (last || energy < rules_->source_floor) continue;
      sources_.push_back({energy, 0.0f, entry.slot, -1});
      source = static_cast<uint32_t>(sources_.size());
      entry.link |= source << 1;
      __builtin_prefetch(graph_->first_block.at(entry.slot));
    } else if (energy > sources_[source - 1].energy) {
      sources_[source - 1].energy = energy;
      if (energy < rules_->source_floor) continue;
    } else {
      continue;
    }
    next_firing_.push_back(source - 1);
  }
  firing_.swap(next_firing_);
}

void Spreader::run(const SpreadGraph& graph, const SpreadRules& rules, const int64_t* seeds,
                   const float* energies, int64_t seed_count) {
  graph_ = &graph;
  rules_ = &rules;
  region_ = rules.facilitation == 1.0f ? 0 : graph.dominant_region(seeds, seed_count);
  begin();
  for (int64_t s = 0; s < seed_count; ++s) {
    if (seeds[s] < 0 || !(energies[s] > 0.0f)) continue;
    Entry* entry = touch(static_cast<int32_t>(seeds[s]));
    if (entry == nullptr) continue;
    if (entry->link >> 1 == 0) {
      sources_.push_back({energies[s], 0.0f, entry->slot, -1});
      __builtin_prefetch(graph.first_block.at(entry->slot));
      entry->link |= static_cast<uint32_t>(sources_.size()) << 1;
    } else {
      Source& source = sources_[(entry->link >> 1) - 1];
      source.energy = std::max(source.energy, energies[s]);
    }
  }
  for (uint32_t i = 0; i < sources_.size(); ++i)
    if (sources_[i].energy >= rules.source_floor) firing_.push_back(i);

  for (int64_t hop = 0; hop < rules.hops && !firing_.empty(); ++hop) {
    hop_begin_ = clock_ + 1;
    changed_.clear();
    const size_t count = firing_.size();
    ahead_ = 0;
    for (size_t i = 0; i < std::min(count, kHeadAhead); ++i) fetch_head(sources_[firing_[i]]);
    for (size_t i = 0; i < std::min(count, kRestAhead); ++i) fetch_rest(sources_[firing_[i]]);
    for (size_t i = 0; i < count; ++i) {
      if (i + kHeadAhead < count) fetch_head(sources_[firing_[i + kHeadAhead]]);
      if (i + kRestAhead < count) fetch_rest(sources_[firing_[i + kRestAhead]]);
      if (ahead_ <= i) {
        ahead_ = i + 1;
        ahead_block_ = ahead_ < count ? sources_[firing_[ahead_]].block : -1;
      }
      ahead_limit_ = std::min(count, i + kRestAhead);
      Source& source = sources_[firing_[i]];
      const float before = source.fired;
      source.fired = source.energy;
      if (region_ != 0) {
        fire<true>(source, source.energy, before);
      } else {
        fire<false>(source, source.energy, before);
      }
    }
    end_hop(hop + 1 == rules.hops);
  }
}

void Spreader::result(int64_t k, float* energies, int64_t* slots) {
  best_.reset(std::min<int64_t>(k, static_cast<int64_t>(touched_.size())));
  float bar = 0.0f;
  for (const uint32_t place : touched_) {
    const Entry& entry = table_[place];
    const uint32_t source = entry.link >> 1;
    const float energy = source != 0 ? sources_[source - 1].energy : fixed_energy(entry.sum);
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
