#include "csrc/graph/population.h"

#include <cmath>
#include <cstring>

#include "csrc/base/error.h"
#include "csrc/graph/adjacency.h"

namespace aesg::graph {

using storage::EventType;
using storage::NodeColumn;

namespace {

// 1 / |v|, summed in double so that it does not depend on vectorisation; 0 for a zero vector.
float inverse_norm(const float* vector, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(vector[d]) * vector[d];
  return sum > 0 ? static_cast<float>(1.0 / std::sqrt(sum)) : 0.0f;
}

void write_vector(storage::Store& store, int64_t slot, const float* vector) {
  const int64_t dim = store.layout().dim();
  std::memcpy(store.at<float>(NodeColumn::kVector, slot), vector, static_cast<size_t>(dim) * sizeof(float));
  *store.at<float>(NodeColumn::kInvNorm, slot) = inverse_norm(vector, dim);
}

}  // namespace

std::vector<int64_t> bear(storage::Store& store, const float* vectors, const uint64_t* ids, int64_t n,
                          const Birth& birth) {
  std::vector<int64_t> slots(static_cast<size_t>(n));
  if (n == 0) return slots;
  const int64_t dim = store.layout().dim();
  if (n > 1) store.reserve_nodes(n);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t slot = store.allocate_slot();
    const uint64_t id = ids ? ids[i] : store.counters().next_id;
    if (id >= store.counters().next_id) store.counters().next_id = id + 1;
    write_vector(store, slot, vectors + i * dim);
    *store.at<uint64_t>(NodeColumn::kId, slot) = id;
    *store.at<uint64_t>(NodeColumn::kCreatedAt, slot) = birth.now;
    *store.at<uint64_t>(NodeColumn::kModifiedAt, slot) = birth.now;
    *store.at<float>(NodeColumn::kRelevance, slot) = birth.relevance;
    *store.at<float>(NodeColumn::kStability, slot) = birth.stability;
    *store.at<uint8_t>(NodeColumn::kIsActive, slot) = 1;
    store.counters().active_count += 1;
    if (birth.log) store.append_event(birth.now, EventType::kCreate, id, 0, 1.0f);
    slots[static_cast<size_t>(i)] = slot;
  }
  return slots;
}

void set_vector(storage::Store& store, int64_t slot, const float* vector, uint64_t now) {
  write_vector(store, slot, vector);
  *store.at<uint64_t>(NodeColumn::kModifiedAt, slot) = now;
  for (NodeColumn column : {NodeColumn::kVector, NodeColumn::kInvNorm, NodeColumn::kModifiedAt})
    store.mark(column, slot);
}

int64_t retire(storage::Store& store, const int64_t* slots, int64_t n, uint64_t now) {
  int64_t died = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t slot = slots[i];
    uint8_t* active = store.at<uint8_t>(NodeColumn::kIsActive, slot);
    if (!*active) continue;
    *active = 0;
    store.mark(NodeColumn::kIsActive, slot);
    release_edges(store, slot);
    store.counters().active_count -= 1;
    store.append_event(now, EventType::kPrune, *store.at<uint64_t>(NodeColumn::kId, slot), 0,
                       *store.at<float>(NodeColumn::kRelevance, slot));
    ++died;
  }
  return died;
}

}  // namespace aesg::graph
