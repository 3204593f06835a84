#include "csrc/graph/population.h"

#include <algorithm>
#include <cstring>

#include "csrc/base/error.h"
#include "csrc/base/norm_math.h"
#include "csrc/graph/adjacency.h"

namespace aesg::graph {

using storage::EventType;
using storage::NodeColumn;

namespace {

// 1 / |v| of `kRows` rows. Rows side by side hide the latency of the additions.
template <int kRows>
void inverse_norms(const float* vectors, int64_t dim, float* out) {
  double sums[kRows] = {};
  for (int64_t d = 0; d < dim; ++d) {
    for (int r = 0; r < kRows; ++r) sums[r] = add_square(sums[r], vectors[r * dim + d]);
  }
  for (int r = 0; r < kRows; ++r) out[r] = inverse_length(sums[r]);
}

void write_vector(storage::Store& store, int64_t slot, const float* vector) {
  const int64_t dim = store.layout().dim();
  std::memcpy(store.at<float>(NodeColumn::kVector, slot), vector, static_cast<size_t>(dim) * sizeof(float));
  inverse_norms<1>(vector, dim, store.at<float>(NodeColumn::kInvNorm, slot));
}

// Rows [slot, slot + n) of one row group, fresh from append_slots(), column by column.
void fill_rows(storage::Store& store, int64_t slot, const float* vectors, int64_t n, const Birth& birth) {
  const int64_t dim = store.layout().dim();
  auto fill = [&](NodeColumn column, auto value) {
    std::fill_n(store.at<decltype(value)>(column, slot), n, value);
  };
  std::memcpy(store.at<float>(NodeColumn::kVector, slot), vectors,
              static_cast<size_t>(n * dim) * sizeof(float));
  float* norms = store.at<float>(NodeColumn::kInvNorm, slot);
  constexpr int kAtOnce = 8;
  int64_t i = 0;
  for (; i + kAtOnce <= n; i += kAtOnce) inverse_norms<kAtOnce>(vectors + i * dim, dim, norms + i);
  for (; i < n; ++i) inverse_norms<1>(vectors + i * dim, dim, norms + i);
  fill(NodeColumn::kCreatedAt, birth.now);
  fill(NodeColumn::kModifiedAt, birth.now);
  fill(NodeColumn::kUseFrequency, uint32_t{0});
  fill(NodeColumn::kRelevance, birth.relevance);
  fill(NodeColumn::kAge, uint32_t{0});
  fill(NodeColumn::kStability, birth.stability);
  fill(NodeColumn::kRegionId, uint32_t{0});
  fill(NodeColumn::kFirstBlock, int32_t{-1});
  fill(NodeColumn::kIsActive, uint8_t{1});
}

}  // namespace

std::vector<int64_t> bear(storage::Store& store, const float* vectors, const uint64_t* ids, int64_t n,
                          const Birth& birth) {
  std::vector<int64_t> slots(static_cast<size_t>(n));
  if (n == 0) return slots;
  const int64_t dim = store.layout().dim();
  if (n > 1) store.reserve_nodes(n);
  if (birth.log) store.reserve_events(static_cast<uint64_t>(n));
  auto name = [&](int64_t i, int64_t slot) {
    const uint64_t id = ids ? ids[i] : store.counters().next_id;
    if (id >= store.counters().next_id) store.counters().next_id = id + 1;
    *store.at<uint64_t>(NodeColumn::kId, slot) = id;
    store.counters().active_count += 1;
    if (birth.log) store.append_event(birth.now, EventType::kCreate, id, 0, 1.0f);
    slots[static_cast<size_t>(i)] = slot;
  };
  int64_t i = 0;
  for (; i < n && store.counters().free_slot >= 0; ++i) {
    const int64_t slot = store.allocate_slot();
    fill_rows(store, slot, vectors + i * dim, 1, birth);
    name(i, slot);
  }
  for (int64_t slot = i < n ? store.append_slots(n - i) : 0; i < n;) {
    const int64_t rows = std::min(n - i, storage::kGroupRows - slot % storage::kGroupRows);
    fill_rows(store, slot, vectors + i * dim, rows, birth);
    for (int64_t end = i + rows; i < end; ++i, ++slot) name(i, slot);
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
