#include "csrc/graph/reorganize.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <unordered_map>

#include "csrc/base/parallel.h"
#include "csrc/graph/adjacency.h"
#include "csrc/graph/common_part.h"
#include "csrc/graph/dot.h"
#include "csrc/graph/population.h"

namespace aesg::graph {

using storage::EventType;
using storage::NodeColumn;

namespace {

double norm_of(const float* vector, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(vector[d]) * vector[d];
  return std::sqrt(sum);
}

float cosine(Store& store, int64_t a, int64_t b) {
  return dot(store.at<float>(NodeColumn::kVector, a), store.at<float>(NodeColumn::kVector, b),
             store.layout().dim()) *
         *store.at<float>(NodeColumn::kInvNorm, a) * *store.at<float>(NodeColumn::kInvNorm, b);
}

// Distinct living neighbours in slot order, without `except`.
std::vector<int32_t> neighbors(Store& store, int64_t slot, int64_t except) {
  std::vector<int32_t> found;
  for_each_edge(store, slot, [&](int32_t block, int index) {
    const int32_t target = store.hot(block)->target[index];
    if (target != except && is_active(store, target)) found.push_back(target);
  });
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

bool alike_around(Store& store, int64_t a, int64_t b) {
  const std::vector<int32_t> left = neighbors(store, a, b), right = neighbors(store, b, a);
  const size_t smaller = std::min(left.size(), right.size());
  std::vector<int32_t> shared;
  std::set_intersection(left.begin(), left.end(), right.begin(), right.end(), std::back_inserter(shared));
  return 2 * shared.size() >= smaller;
}

struct Edge {
  int32_t target;
  EdgeKind kind;
  bool up;
  float weight, confidence;
  uint32_t uses;
};

std::vector<Edge> edges_of(Store& store, int64_t slot) {
  std::vector<Edge> found;
  for_each_edge(store, slot, [&](int32_t block, int index) {
    const storage::ColdBlock& cold = *store.cold(block);
    found.push_back({store.hot(block)->target[index], edge_kind(cold, index), leads_up(cold, index),
                     cold.weight[index], cold.confidence[index], cold.use_count[index]});
  });
  return found;
}

// Gives `source` that edge, to `target`. Where it has one the more confident of the two stays, uses are
// summed.
void unite_edge(Store& store, int64_t source, int32_t target, const Edge& edge) {
  EdgeRef there = find_edge(store, source, target, edge.kind);
  if (!there) {
    put_edge(store, source, target, edge.kind, edge.weight, edge.confidence, edge.up);
    there = find_edge(store, source, target, edge.kind);
  } else if (edge.confidence > store.cold(there.block)->confidence[there.index]) {
    set_edge(store, there, edge.weight, edge.confidence);
  }
  storage::ColdBlock& cold = *store.cold(there.block);
  cold.use_count[there.index] += edge.uses;
  if (edge.up) cold.tag[there.index] |= storage::kEdgeUpBit;
  store.mark_cold(there.block);
}

// Leads every edge into a dropped concept to the one that took its place.
void redirect(Store& store, const std::unordered_map<int32_t, int32_t>& successor) {
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t slot = 0; slot < count; ++slot) {
    if (!is_active(store, slot)) continue;
    std::vector<Edge> moved;
    for (const Edge& edge : edges_of(store, slot))
      if (successor.count(edge.target)) moved.push_back(edge);
    if (moved.empty()) continue;
    filter_edges(store, slot, [&](const storage::HotBlock& hot, const storage::ColdBlock&, int index) {
      return successor.count(hot.target[index]) == 0;
    });
    for (const Edge& edge : moved) {
      const int32_t target = successor.at(edge.target);
      if (target != slot) unite_edge(store, slot, target, edge);
    }
  }
}

struct Likeness {
  int32_t slot, other;
  float cosine;
};

// Living pairs with cosine >= `similarity`, by slot, joined by a similarity edge slot -> other that was made
// or used since the last sweep: what is alike is active together as soon as one of it is asked for. Nearly
// all of the time goes into fetching the neighbours' vectors, so those are asked for a few concepts ahead.
std::vector<Likeness> find_alike(Store& store, float similarity, int threads, const double* common) {
  constexpr int64_t kAhead = 4, kGrain = 4096, kLine = 64;
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  const int64_t vector_bytes = std::min<int64_t>(store.layout().row_bytes(NodeColumn::kVector), 8 * kLine);
  std::vector<std::vector<Likeness>> found(static_cast<size_t>(std::max(1, threads)));
  parallel_parts(count, threads, kGrain, [&](int64_t part, int64_t begin, int64_t end) {
    std::vector<int32_t> ring[kAhead];
    const auto fetch = [&](int64_t slot) {
      std::vector<int32_t>& others = ring[slot % kAhead];
      others.clear();
      if (!is_active(store, slot)) return;
      for_each_edge(store, slot, [&](int32_t block, int index) {
        constexpr uint8_t kLooked = storage::kEdgeKindMask | storage::kEdgeUsedBit;
        constexpr uint8_t kWanted = static_cast<uint8_t>(EdgeKind::kSimilarity) | storage::kEdgeUsedBit;
        if ((store.cold(block)->tag[index] & kLooked) != kWanted) return;
        const int32_t other = store.hot(block)->target[index];
        if (!is_active(store, other)) return;
        const char* vector = store.at<char>(NodeColumn::kVector, other);
        for (int64_t byte = 0; byte < vector_bytes; byte += kLine) __builtin_prefetch(vector + byte);
        __builtin_prefetch(store.at<float>(NodeColumn::kInvNorm, other));
        others.push_back(other);
      });
    };
    for (int64_t slot = begin; slot < std::min(begin + kAhead - 1, end); ++slot) fetch(slot);
    for (int64_t slot = begin; slot < end; ++slot) {
      if (slot + kAhead - 1 < end) fetch(slot + kAhead - 1);
      for (int32_t other : ring[slot % kAhead]) {
        const float c = common == nullptr ? cosine(store, slot, other)
                                          : cosine_without(common, store.at<float>(NodeColumn::kVector, slot),
                                                           store.at<float>(NodeColumn::kVector, other),
                                                           store.layout().dim());
        if (c >= similarity)
          found[static_cast<size_t>(part)].push_back({static_cast<int32_t>(slot), other, c});
      }
    }
  });
  std::vector<Likeness> all;
  for (const auto& part : found) all.insert(all.end(), part.begin(), part.end());
  return all;
}

using Direction = std::vector<double>;

Direction unit(const float* vector, int64_t dim) {
  Direction direction(vector, vector + dim);
  const double norm = norm_of(vector, dim);
  for (double& value : direction) value = norm > 0 ? value / norm : 0;
  return direction;
}

double dot(const Direction& a, const Direction& b) {
  double sum = 0;
  for (size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
  return sum;
}

void normalize(Direction& direction) {
  const double norm = std::sqrt(dot(direction, direction));
  if (norm > 0)
    for (double& value : direction) value /= norm;
}

// Which of two clusters each point belongs to. Starts from the point least like the mean and the one least
// like that. Empty when all points end in one cluster.
std::vector<uint8_t> two_means(const std::vector<Direction>& points, Direction centers[2]) {
  constexpr int kMaxRounds = 20;
  Direction mean(points[0].size(), 0.0);
  for (const Direction& point : points)
    for (size_t d = 0; d < mean.size(); ++d) mean[d] += point[d];
  const auto farthest = [&](const Direction& from) {
    size_t best = 0;
    for (size_t i = 1; i < points.size(); ++i)
      if (dot(points[i], from) < dot(points[best], from)) best = i;
    return points[best];
  };
  centers[0] = farthest(mean);
  centers[1] = farthest(centers[0]);
  std::vector<uint8_t> cluster(points.size(), 2);
  for (int round = 0; round < kMaxRounds; ++round) {
    bool changed = false;
    for (size_t i = 0; i < points.size(); ++i) {
      const uint8_t nearest = dot(points[i], centers[1]) > dot(points[i], centers[0]) ? 1 : 0;
      changed |= nearest != cluster[i];
      cluster[i] = nearest;
    }
    if (!changed) break;
    for (int c = 0; c < 2; ++c) {
      Direction sum(mean.size(), 0.0);
      for (size_t i = 0; i < points.size(); ++i)
        if (cluster[i] == c)
          for (size_t d = 0; d < sum.size(); ++d) sum[d] += points[i][d];
      normalize(sum);
      centers[c] = sum;
    }
  }
  const auto second = std::count(cluster.begin(), cluster.end(), 1);
  if (second == 0 || second == static_cast<std::ptrdiff_t>(cluster.size())) cluster.clear();
  return cluster;
}

// Half way from the concept's direction to a cluster's, at the concept's length.
std::vector<float> towards(const Direction& own, const Direction& center, double length) {
  Direction sum(own);
  for (size_t d = 0; d < sum.size(); ++d) sum[d] += center[d];
  normalize(sum);
  std::vector<float> vector(sum.size());
  for (size_t d = 0; d < sum.size(); ++d) vector[d] = static_cast<float>(sum[d] * length);
  return vector;
}

}  // namespace

std::vector<std::pair<int32_t, int32_t>> find_duplicates(Store& store, float similarity, int threads,
                                                         const double* common) {
  const std::vector<Likeness> alike = find_alike(store, similarity, threads, common);
  std::vector<uint8_t> taken(store.counters().node_count, 0);
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (size_t i = 0; i < alike.size();) {
    const int32_t slot = alike[i].slot;
    const Likeness* best = nullptr;
    for (; i < alike.size() && alike[i].slot == slot; ++i) {
      const Likeness& found = alike[i];
      if (taken[static_cast<size_t>(slot)] || taken[static_cast<size_t>(found.other)]) continue;
      const bool better = best == nullptr || found.cosine > best->cosine ||
                          (found.cosine == best->cosine && found.other < best->other);
      if (better && alike_around(store, slot, found.other)) best = &found;
    }
    if (best == nullptr) continue;
    int32_t kept = slot, dropped = best->other;
    taken[static_cast<size_t>(kept)] = taken[static_cast<size_t>(dropped)] = 1;
    const auto uses = [&](int32_t s) { return *store.at<uint32_t>(NodeColumn::kUseFrequency, s); };
    if (uses(dropped) > uses(kept) || (uses(dropped) == uses(kept) && dropped < kept))
      std::swap(kept, dropped);
    pairs.emplace_back(kept, dropped);
  }
  return pairs;
}

void merge(Store& store, const std::vector<std::pair<int32_t, int32_t>>& pairs, uint64_t now) {
  if (pairs.empty()) return;
  const int64_t dim = store.layout().dim();
  std::unordered_map<int32_t, int32_t> successor;
  for (const auto& [kept, dropped] : pairs) successor[dropped] = kept;
  std::vector<float> mean(static_cast<size_t>(dim));
  for (const auto& [kept, dropped] : pairs) {
    const float cos = cosine(store, kept, dropped);
    uint32_t& uses = *store.at<uint32_t>(NodeColumn::kUseFrequency, kept);
    const uint32_t dropped_uses = *store.at<uint32_t>(NodeColumn::kUseFrequency, dropped);
    const double share = (dropped_uses + 1.0) / (static_cast<double>(uses) + dropped_uses + 2.0);
    const float* a = store.at<float>(NodeColumn::kVector, kept);
    const float* b = store.at<float>(NodeColumn::kVector, dropped);
    for (int64_t d = 0; d < dim; ++d)
      mean[static_cast<size_t>(d)] = static_cast<float>(a[d] + share * (b[d] - a[d]));
    set_vector(store, kept, mean.data(), now);
    uses += dropped_uses;
    float& relevance = *store.at<float>(NodeColumn::kRelevance, kept);
    relevance = std::max(relevance, *store.at<float>(NodeColumn::kRelevance, dropped));
    store.mark(NodeColumn::kUseFrequency, kept);
    store.mark(NodeColumn::kRelevance, kept);
    for (const Edge& edge : edges_of(store, dropped))
      if (edge.target != kept && (is_active(store, edge.target) || successor.count(edge.target)))
        unite_edge(store, kept, edge.target, edge);
    store.append_event(now, EventType::kMerge, *store.at<uint64_t>(NodeColumn::kId, kept),
                       *store.at<uint64_t>(NodeColumn::kId, dropped), cos);
    *store.at<uint8_t>(NodeColumn::kIsActive, dropped) = 0;
    store.mark(NodeColumn::kIsActive, dropped);
    release_edges(store, dropped);
    store.counters().active_count -= 1;
  }
  redirect(store, successor);
}

int64_t split(Store& store, int64_t slot, float initial_confidence, uint64_t now) {
  const int64_t dim = store.layout().dim();
  const std::vector<int32_t> around = neighbors(store, slot, -1);
  if (around.size() < 2) return -1;
  std::vector<Direction> points;
  for (int32_t neighbor : around) points.push_back(unit(store.at<float>(NodeColumn::kVector, neighbor), dim));
  Direction centers[2];
  const std::vector<uint8_t> cluster = two_means(points, centers);
  if (cluster.empty()) return -1;

  const float* own = store.at<float>(NodeColumn::kVector, slot);
  const double length = norm_of(own, dim);
  const Direction direction = unit(own, dim);
  const std::vector<float> first = towards(direction, centers[0], length);
  const std::vector<float> second = towards(direction, centers[1], length);
  const Birth birth{now, *store.at<float>(NodeColumn::kRelevance, slot),
                    *store.at<float>(NodeColumn::kStability, slot), false};
  const int64_t fresh = bear(store, second.data(), nullptr, 1, birth)[0];
  set_vector(store, slot, first.data(), now);
  *store.at<uint32_t>(NodeColumn::kRegionId, fresh) = *store.at<uint32_t>(NodeColumn::kRegionId, slot);

  const auto moves = [&](int32_t target) {
    const auto place = std::lower_bound(around.begin(), around.end(), target);
    return place != around.end() && *place == target && cluster[static_cast<size_t>(place - around.begin())];
  };
  for (const Edge& edge : edges_of(store, slot))
    if (moves(edge.target)) unite_edge(store, fresh, edge.target, edge);
  filter_edges(store, slot, [&](const storage::HotBlock& hot, const storage::ColdBlock&, int index) {
    return !moves(hot.target[index]);
  });
  // The neighbours that moved now know the newborn instead of `slot`.
  for (int32_t neighbor : around) {
    if (!moves(neighbor)) continue;
    for (const Edge& edge : edges_of(store, neighbor))
      if (edge.target == slot) unite_edge(store, neighbor, static_cast<int32_t>(fresh), edge);
    filter_edges(store, neighbor, [&](const storage::HotBlock& hot, const storage::ColdBlock&, int index) {
      return hot.target[index] != slot;
    });
  }
  const float weight = std::clamp(cosine(store, slot, fresh), 0.0f, 1.0f);
  put_edge(store, slot, static_cast<int32_t>(fresh), EdgeKind::kSimilarity, weight, initial_confidence);
  put_edge(store, fresh, static_cast<int32_t>(slot), EdgeKind::kSimilarity, weight, initial_confidence);
  store.append_event(now, EventType::kSplit, *store.at<uint64_t>(NodeColumn::kId, slot),
                     *store.at<uint64_t>(NodeColumn::kId, fresh), static_cast<float>(around.size()));
  return fresh;
}

std::vector<int64_t> find_crowded(Store& store, int64_t degree) {
  std::vector<int64_t> crowded;
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t slot = 0; slot < count; ++slot) {
    if (!is_active(store, slot)) continue;
    int64_t edges = 0;
    for (int32_t block = first_block(store, slot); block >= 0; block = store.hot(block)->next)
      edges += store.hot(block)->count;
    if (edges > degree) crowded.push_back(slot);
  }
  return crowded;
}

}  // namespace aesg::graph
