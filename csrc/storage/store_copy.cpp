// One store's contents in another: snapshots and restoring.
#include <algorithm>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {

constexpr uint8_t kZeros[kLineBytes] = {};

// Groups 0..groups-1 of `to` become those of `from`, zero where `from` has none; what differed is marked.
void copy_groups(uint8_t* to, int64_t groups, const uint8_t* from, int64_t from_groups, int64_t group_bytes,
                 DirtyMap& dirty) {
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t at = 0; at < group_bytes; at += kLineBytes) {
      uint8_t* line = to + group * group_bytes + at;
      const uint8_t* wanted = group < from_groups ? from + group * group_bytes + at : kZeros;
      if (std::memcmp(line, wanted, kLineBytes) == 0) continue;
      std::memcpy(line, wanted, kLineBytes);
      dirty.mark(group, at / kLineBytes, at / kLineBytes);
    }
  }
}

}  // namespace

void Store::copy_from(Store& source) {
  impl_->require_writable();
  if (&source == this) return;
  if (source.layout_.dim() != layout_.dim()) {
    throw StorageError("'" + source.directory() + "' holds vectors of " +
                       std::to_string(source.layout_.dim()) + " dimensions, '" + directory() + "' of " +
                       std::to_string(layout_.dim()));
  }
  const Counters& wanted = source.counters_;
  std::vector<uint8_t> log = source.events(0, wanted.event_count);  // these two read and check before
  std::vector<uint8_t> state = source.state();                      // anything is changed
  // Rows that fall away have to be zero in the main files; with an empty journal they are all there.
  if (!impl_->fold()) {
    throw StorageError("'" + directory() + "' cannot be replaced while a reader has it open");
  }
  std::vector<uint8_t> own = events(0, impl_->committed.event_count);
  size_t same = static_cast<size_t>(
                    std::mismatch(own.begin(),
                                  own.begin() + static_cast<std::ptrdiff_t>(std::min(own.size(), log.size())),
                                  log.begin())
                        .first -
                    own.begin()) /
                kEventBytes * kEventBytes;

  impl_->node_arena.grow(kHeaderBytes + groups_for(wanted.node_count) * layout_.group_bytes());
  impl_->edge_arena.grow(kHeaderBytes + groups_for(wanted.block_count) * kEdgeGroupBytes);
  copy_groups(node_bytes_, node_groups(), source.node_bytes_, groups_for(wanted.node_count),
              layout_.group_bytes(), impl_->node_dirty);
  copy_groups(edge_bytes_, block_groups(), source.edge_bytes_, groups_for(wanted.block_count),
              kEdgeGroupBytes, impl_->edge_dirty);
  impl_->stamp_all();
  impl_->kept_events = same / kEventBytes;
  impl_->keep_events(impl_->kept_events);
  impl_->recent_events.insert(impl_->recent_events.end(), log.begin() + static_cast<std::ptrdiff_t>(same),
                              log.end());
  set_state(std::move(state));
  vector_changes_ = {};
  uint64_t generation = counters_.generation;
  counters_ = wanted;
  counters_.generation = generation;
}

void Store::snapshot(const std::string& to) const {
  OpenOptions options = impl_->options;
  options.access = Access::kRead;
  std::shared_ptr<Store> committed = open(options);
  DirectoryKind kind = inspect(to, &impl_->fs).kind;
  if (kind != DirectoryKind::kMissing && kind != DirectoryKind::kEmpty) {
    throw StorageError("'" + to + "' already holds something: expected a missing or empty directory");
  }
  options.directory = to;
  options.vector_dim = layout_.dim();
  options.access = Access::kWrite;
  std::shared_ptr<Store> copy = open(options);
  try {
    copy->copy_from(*committed);
    copy->commit();
    copy->close();
  } catch (const StorageError&) {
    copy->impl_->refusing = "the copy was given up";  // so that close() does not fold
    copy->close();
    for (const char* name : {names::kMeta, names::kNodes, names::kEdges, names::kLog, names::kState,
                             names::kSums, names::kJournal, names::kLock}) {
      try {
        impl_->fs.remove(to + "/" + name);
      } catch (const StorageError&) {
      }
    }
    try {
      if (kind == DirectoryKind::kMissing) impl_->fs.remove_directory(to);
    } catch (const StorageError&) {
    }
    throw;
  }
}

}  // namespace aesg::storage
