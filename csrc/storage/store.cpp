#include "csrc/storage/store.h"

#include <algorithm>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {
constexpr int64_t kMostListed = 1 << 20;  // changed vectors listed one by one: 8 MiB
}

Store::Store(std::unique_ptr<Impl> impl)
    : layout_(impl->layout),
      counters_(impl->committed),
      node_bytes_(impl->node_arena.base() + kHeaderBytes),
      edge_bytes_(impl->edge_arena.base() + kHeaderBytes),
      impl_(std::move(impl)) {}

Store::~Store() {
  if (impl_->closed) return;
  try {
    close();
  } catch (const StorageError&) {
    // Nothing committed is lost by it: the next opening folds.
  }
}

const std::string& Store::directory() const { return impl_->options.directory; }
bool Store::read_only() const { return !impl_->writer(); }
bool Store::closed() const { return impl_->closed; }

int64_t Store::node_groups() const {
  return (impl_->node_arena.mapped() - kHeaderBytes) / layout_.group_bytes();
}
int64_t Store::block_groups() const { return (impl_->edge_arena.mapped() - kHeaderBytes) / kEdgeGroupBytes; }

void Store::mark(NodeColumn column, int64_t slot) {
  if (!is_learnt(column)) return mark_rows(column, slot, slot + 1);
  // What use changes is marked one by one, often; its values have 4 bytes.
  const int64_t group = slot / kGroupRows;
  impl_->stamp(impl_->learnt_stamps, group, group + 1);
  const int64_t line = (layout_.offset(column) + slot % kGroupRows * 4) / kLineBytes;
  impl_->node_dirty.mark(group, line, line);
}

void Store::mark_rows(NodeColumn column, int64_t first, int64_t last) {
  if (watches_vectors_ && column == NodeColumn::kVector && !vector_changes_.all) {
    VectorChanges& changes = vector_changes_;
    changes.all = static_cast<int64_t>(changes.slots.size()) + (last - first) > kMostListed;
    if (changes.all) changes.slots.clear();
    for (int64_t slot = first; slot < last && !changes.all; ++slot) changes.slots.push_back(slot);
  }
  std::vector<uint64_t>* stamps = column == NodeColumn::kVector ? &impl_->vector_stamps
                                  : is_looked_up(column)        ? &impl_->group_stamps
                                  : is_learnt(column)           ? &impl_->learnt_stamps
                                                                : nullptr;
  if (first < last && stamps) impl_->stamp(*stamps, first / kGroupRows, (last - 1) / kGroupRows + 1);
  const int64_t offset = layout_.offset(column), bytes = layout_.row_bytes(column);
  while (first < last) {
    int64_t group = first / kGroupRows, row = first % kGroupRows;
    int64_t rows = std::min(last - first, kGroupRows - row);
    impl_->node_dirty.mark(group, (offset + row * bytes) / kLineBytes,
                           (offset + (row + rows) * bytes - 1) / kLineBytes);
    first += rows;
  }
}

Store::VectorChanges Store::take_vector_changes() {
  VectorChanges taken;
  std::swap(taken, vector_changes_);
  vector_changes_.all = false;
  taken.all = taken.all || !watches_vectors_;
  watches_vectors_ = true;
  return taken;
}

const std::vector<uint64_t>& Store::vector_stamps() const { return impl_->vector_stamps; }
const std::vector<uint64_t>& Store::group_stamps() const { return impl_->group_stamps; }
const std::vector<uint64_t>& Store::learnt_stamps() const { return impl_->learnt_stamps; }
const std::vector<uint64_t>& Store::block_stamps() const { return impl_->block_stamps; }
const std::vector<uint64_t>& Store::cold_stamps() const { return impl_->cold_stamps; }
uint64_t Store::changes() const { return impl_->stamp_clock; }

void Store::Impl::stamp(std::vector<uint64_t>& stamps, int64_t first, int64_t last) {
  if (static_cast<int64_t>(stamps.size()) < last) stamps.resize(static_cast<size_t>(last));
  ++stamp_clock;
  for (int64_t group = first; group < last; ++group) stamps[static_cast<size_t>(group)] = stamp_clock;
}

void Store::Impl::stamp_all() {
  const int64_t groups = (node_arena.mapped() - kHeaderBytes) / layout.group_bytes();
  stamp(vector_stamps, 0, groups);
  stamp(group_stamps, 0, groups);
  stamp(learnt_stamps, 0, groups);
  const int64_t of_blocks = (edge_arena.mapped() - kHeaderBytes) / kEdgeGroupBytes;
  stamp(block_stamps, 0, of_blocks);
  stamp(cold_stamps, 0, of_blocks);
}

void Store::mark_hot(int64_t block) {
  impl_->stamp(impl_->block_stamps, block / kGroupRows, block / kGroupRows + 1);
  int64_t line = block % kGroupRows;
  impl_->edge_dirty.mark(block / kGroupRows, line, line);
}

void Store::mark_cold(int64_t block) {
  impl_->stamp(impl_->cold_stamps, block / kGroupRows, block / kGroupRows + 1);
  int64_t offset = kHotGroupBytes + block % kGroupRows * static_cast<int64_t>(sizeof(ColdBlock));
  impl_->edge_dirty.mark(block / kGroupRows, offset / kLineBytes,
                         (offset + static_cast<int64_t>(sizeof(ColdBlock)) - 1) / kLineBytes);
}

void Store::reserve_nodes(int64_t more) {
  impl_->require_writable();
  int64_t rows = static_cast<int64_t>(counters_.node_count) + std::max<int64_t>(more, 0);
  if (rows > kMaxRows) {
    throw StorageError("a store holds at most " + std::to_string(kMaxRows) + " concepts, asked for " +
                       std::to_string(rows));
  }
  impl_->node_arena.grow(kHeaderBytes + groups_for(static_cast<uint64_t>(rows)) * layout_.group_bytes());
}

int64_t Store::allocate_slot() {
  int64_t slot = counters_.free_slot;
  int64_t next_free = -1;
  if (slot >= 0) {
    impl_->require_writable();
    auto limit = static_cast<int64_t>(counters_.node_count);
    next_free = slot < limit ? -static_cast<int64_t>(*at<int32_t>(NodeColumn::kFirstBlock, slot)) - 2 : -2;
    if (next_free < -1 || next_free >= limit || *at<uint64_t>(NodeColumn::kId, slot) != 0 ||
        *at<uint8_t>(NodeColumn::kIsActive, slot) != 0) {
      throw StorageError("'" + directory() + "' is damaged: slot " + std::to_string(slot) +
                         " is in the list of free slots and is not free");
    }
  } else {
    reserve_nodes(1);
    slot = static_cast<int64_t>(counters_.node_count);
  }
  for (int c = 0; c < kNodeColumnCount; ++c) {
    auto column = static_cast<NodeColumn>(c);
    std::memset(at<uint8_t>(column, slot), 0, static_cast<size_t>(layout_.row_bytes(column)));
    mark_rows(column, slot, slot + 1);
  }
  *at<int32_t>(NodeColumn::kFirstBlock, slot) = -1;
  if (counters_.free_slot >= 0) {
    counters_.free_slot = next_free;
  } else {
    ++counters_.node_count;
  }
  return slot;
}

int64_t Store::append_slots(int64_t n) {
  reserve_nodes(n);
  const auto first = static_cast<int64_t>(counters_.node_count);
  counters_.node_count += static_cast<uint64_t>(std::max<int64_t>(n, 0));
  for (int c = 0; c < kNodeColumnCount; ++c) {
    mark_rows(static_cast<NodeColumn>(c), first, static_cast<int64_t>(counters_.node_count));
  }
  return first;
}

void Store::free_slot(int64_t slot) {
  impl_->require_writable();
  if (slot < 0 || slot >= static_cast<int64_t>(counters_.node_count)) {
    throw ArgumentError("free_slot: expected a slot below " + std::to_string(counters_.node_count) +
                        ", got " + std::to_string(slot));
  }
  *at<uint64_t>(NodeColumn::kId, slot) = 0;
  *at<uint8_t>(NodeColumn::kIsActive, slot) = 0;
  *at<int32_t>(NodeColumn::kFirstBlock, slot) = static_cast<int32_t>(-counters_.free_slot - 2);
  mark(NodeColumn::kId, slot);
  mark(NodeColumn::kIsActive, slot);
  mark(NodeColumn::kFirstBlock, slot);
  counters_.free_slot = slot;
}

int32_t Store::allocate_block() {
  impl_->require_writable();
  int64_t block = counters_.free_block;
  int64_t next_free = -1;
  if (block >= 0) {
    auto limit = static_cast<int64_t>(counters_.block_count);
    next_free = block < limit ? hot(block)->next : -2;
    if (next_free < -1 || next_free >= limit || cold(block)->source != -1 || hot(block)->count != 0) {
      throw StorageError("'" + directory() + "' is damaged: edge block " + std::to_string(block) +
                         " is in the list of free blocks and is not free");
    }
  } else {
    block = static_cast<int64_t>(counters_.block_count);
    if (block >= kMaxRows) {
      throw StorageError("a store holds at most " + std::to_string(kMaxRows) + " edge blocks");
    }
    impl_->edge_arena.grow(kHeaderBytes + groups_for(static_cast<uint64_t>(block) + 1) * kEdgeGroupBytes);
  }
  *hot(block) = HotBlock{{-1, -1, -1, -1, -1, -1, -1}, {}, -1, 0};
  *cold(block) = ColdBlock{};
  cold(block)->source = -1;
  mark_hot(block);
  mark_cold(block);
  if (counters_.free_block >= 0) {
    counters_.free_block = next_free;
  } else {
    ++counters_.block_count;
  }
  return static_cast<int32_t>(block);
}

void Store::free_block(int32_t block) {
  impl_->require_writable();
  if (block < 0 || block >= static_cast<int64_t>(counters_.block_count)) {
    throw ArgumentError("free_block: expected a block below " + std::to_string(counters_.block_count) +
                        ", got " + std::to_string(block));
  }
  *hot(block) = HotBlock{{-1, -1, -1, -1, -1, -1, -1}, {}, static_cast<int32_t>(counters_.free_block), 0};
  *cold(block) = ColdBlock{};
  cold(block)->source = -1;
  mark_hot(block);
  mark_cold(block);
  counters_.free_block = block;
}

void Store::append_event(uint64_t timestamp, EventType type, uint64_t id1, uint64_t id2, float value) {
  impl_->require_writable();
  uint8_t bytes[kEventBytes] = {};  // the 3.0.0 layout <QB3xQQf: no alignment, so field by field
  std::memcpy(bytes, &timestamp, 8);
  bytes[8] = static_cast<uint8_t>(type);
  std::memcpy(bytes + 12, &id1, 8);
  std::memcpy(bytes + 20, &id2, 8);
  std::memcpy(bytes + 28, &value, 4);
  impl_->recent_events.insert(impl_->recent_events.end(), bytes, bytes + kEventBytes);
  ++counters_.event_count;
}

void Store::reserve_events(uint64_t more) {
  impl_->require_writable();
  std::vector<uint8_t>& staged = impl_->recent_events;
  const size_t need = staged.size() + static_cast<size_t>(more) * kEventBytes;
  if (need > staged.capacity()) staged.reserve(std::max(need, 2 * staged.size()));
}

std::vector<uint8_t> Store::events(uint64_t first, uint64_t n) const {
  return impl_->events(first, n, counters_.event_count);
}

const std::vector<uint8_t>& Store::state() const {
  return impl_->state_staged ? impl_->staged_state : impl_->state();
}

void Store::set_state(std::vector<uint8_t> bytes) {
  impl_->require_writable();
  impl_->state();
  impl_->staged_state = std::move(bytes);
  impl_->state_staged = true;
}

uint64_t Store::commit() {
  counters_.generation = impl_->commit(counters_);
  return counters_.generation;
}

void Store::fold() {
  impl_->require_writable();
  impl_->fold();
}

void Store::compact() {
  impl_->require_writable();
  if (!impl_->fold()) {
    throw StorageError(
        "'" + directory() +
        "' cannot be compacted while a reader has it open: close the reader, then compact again");
  }
  // Also when there was nothing to fold: an earlier fold left its records in place.
  impl_->journal_room = 0;
  try {
    impl_->journal_file->resize(kHeaderBytes);
    impl_->journal_file->sync();
  } catch (const SyncError& error) {
    impl_->refusing = error.what();
    throw;
  }
}

void Store::close() {
  if (impl_->closed) return;
  impl_->closed = true;
  if (impl_->writer() && !impl_->locks.in_child() && impl_->refusing.empty()) {
    try {
      if (impl_->fold()) impl_->journal_file->resize(kHeaderBytes);
    } catch (const StorageError&) {
      // What was committed is durable in the journal; the next opening folds it.
    }
  }
  impl_->locks.release();
}

bool Store::refresh() {
  if (impl_->closed) throw StorageError("'" + directory() + "' was closed");
  if (impl_->writer()) return false;
  bool changed = impl_->refresh();
  if (changed) vector_changes_ = {};
  if (changed) impl_->stamp_all();
  counters_ = impl_->committed;
  return changed;
}

}  // namespace aesg::storage
