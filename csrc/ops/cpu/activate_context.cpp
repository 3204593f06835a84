// Seeds are thinned, streams primed, energy spread, and the seeds put in front of what it reached.
#include "csrc/ops/cpu/activate_context.h"

#include <algorithm>

#include "csrc/ops/activate_context_math.h"

namespace aesg::cpu {
namespace {

// std::stable_sort, which asks for memory every time, where there is more than a few to sort.
template <typename Entry, typename Before>
void sort_stably(std::vector<Entry>& entries, Before before) {
  constexpr size_t kFew = 32;
  if (entries.size() > kFew) return std::stable_sort(entries.begin(), entries.end(), before);
  for (size_t next = 1; next < entries.size(); ++next) {
    const Entry entry = entries[next];
    size_t at = next;
    for (; at > 0 && before(entry, entries[at - 1]); --at) entries[at] = entries[at - 1];
    entries[at] = entry;
  }
}

}  // namespace

void ContextFinder::run(const SpreadGraph& graph, const SpreadRules& rules, const ContextRules& context,
                        const Priming& priming, const float* similarities, const int64_t* seeds, float bar,
                        int64_t stream, const ContextOut& out) {
  const int64_t count = context.seeds, k = context.members;
  const float least = least_similarity(context.relative, count > 0 ? similarities[0] : 0.0f, bar);
  starts_.clear();
  start_energies_.clear();
  for (int64_t s = 0; s < count; ++s) {
    const bool strong = similarities[s] >= least;
    out.seeds[s] = strong ? seeds[s] : -1;
    out.similarities[s] = strong ? similarities[s] : 0.0f;
    starts_.push_back(out.seeds[s]);
    start_energies_.push_back(out.similarities[s]);
  }
  if (stream >= 0) {
    for (int64_t p = 0; p < priming.count; ++p) {
      const int64_t at = stream * priming.count + p, slot = priming.slots[at];
      // A slot that was freed, or given to another concept, means nothing to the stream.
      const bool still = slot >= 0 && graph.active[slot] &&
                         (!priming.current_id || priming.current_id[slot] == priming.ids[at]);
      starts_.push_back(still ? slot : -1);
      start_energies_.push_back(still ? primed_energy(priming.energies[at], priming.share) : 0.0f);
    }
  }
  const int64_t width = static_cast<int64_t>(starts_.size());
  energies_.resize(k);
  members_.resize(k);
  if (context.jacobian) {
    slopes_.resize(k * width);
    trace_.run(graph, rules, starts_.data(), start_energies_.data(), width);
    trace_.result(k, energies_.data(), members_.data(), slopes_.data());
    led_.assign(k * count, 0.0f);  // the primed columns are constants: left out
    for (int64_t i = 0; i < k; ++i) std::copy_n(slopes_.data() + i * width, count, led_.data() + i * count);
  } else {
    spreader_.run(starts_.data(), start_energies_.data(), width);
    spreader_.result(k, energies_.data(), members_.data());
  }
  lead_by_seeds(context, out);
}

// Where many edges meet, energy that spread saturates and would push what the query itself means out of its
// context. So no member has more energy than the best seed, of equals seeds come first, and a seed that was
// pushed out takes the place of the weakest. What was primed alone, without a seed, stays as it is.
void ContextFinder::lead_by_seeds(const ContextRules& context, const ContextOut& out) {
  const int64_t count = context.seeds, k = context.members;
  const float best = count > 0 ? out.similarities[0] : 0.0f;
  if (best > 0.0f) {
    for (int64_t i = 0; i < k; ++i) {
      const float before = energies_[i];
      energies_[i] = led_energy(before, best);
      if (!context.jacobian || before < best) continue;
      float* row = led_.data() + i * count;
      for (int64_t s = 0; s < count; ++s) row[s] = led_slope(row[s], s == 0, before, best);
    }
  }
  entries_.clear();
  for (int64_t s = 0; s < count; ++s) {
    const int64_t slot = out.seeds[s];
    if (slot >= 0 && std::find(members_.begin(), members_.end(), slot) == members_.end())
      entries_.push_back({out.similarities[s], slot, true, static_cast<int32_t>(-1 - s)});
  }
  for (int64_t i = 0; i < k; ++i) {
    const int64_t slot = members_[i];
    const bool leads = slot >= 0 && std::find(out.seeds, out.seeds + count, slot) != out.seeds + count;
    entries_.push_back({energies_[i], slot, leads, static_cast<int32_t>(i)});
  }
  // Most contexts are in order already.
  sort_stably(entries_,
              [](const Entry& a, const Entry& b) { return kept_before(a.leads, a.value, b.leads, b.value); });
  entries_.resize(k);
  sort_stably(entries_, [](const Entry& a, const Entry& b) {
    return shown_before(a.leads, a.value, b.leads, b.value);
  });
  for (int64_t i = 0; i < k; ++i) {
    const Entry& entry = entries_[i];
    out.energies[i] = entry.value;
    out.members[i] = entry.slot;
    if (!context.jacobian) continue;
    float* row = out.jacobian + i * count;
    if (entry.row >= 0) {
      std::copy_n(led_.data() + entry.row * count, count, row);
    } else {
      std::fill_n(row, count, 0.0f);
      row[-1 - entry.row] = 1.0f;
    }
  }
}

bool ContextFinder::take_damage() {
  const bool spread = spreader_.take_damage(), traced = trace_.take_damage();
  return spread || traced;
}

}  // namespace aesg::cpu
