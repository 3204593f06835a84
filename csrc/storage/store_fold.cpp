// Fold: the journal's records move into the main files, then meta.npy moves on and the journal begins anew.
//
// Every step can be cut short and done again: until meta names the next epoch the records hold, and laying a
// record over its own effects changes nothing.
#include <algorithm>

#include "csrc/storage/page_writer.h"
#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {

// Records are read and laid down together up to this many bytes.
constexpr int64_t kBatchBytes = 64 << 20;

void resum_log(File& log, Checksums sums, int64_t first_byte, int64_t end) {
  int64_t begin = first_byte / kPageBytes * kPageBytes;
  std::vector<uint8_t> bytes(static_cast<size_t>(end - begin));
  log.read_at(bytes.data(), end - begin, begin);
  sums.write(Summed::kLog, begin / kPageBytes, page_sums(bytes.data(), end - begin));
}

}  // namespace

bool Store::Impl::fold() {
  if (journal.entries().empty()) return true;
  if (!locks.close_gate(fs, options.directory)) return false;
  struct Gate {
    Locks& locks;
    ~Gate() { locks.open_gate(); }
  } gate{locks};

  const RecordHeader& last = journal.last();
  const int64_t group_bytes = layout.group_bytes();
  const int64_t node_groups = all_node_groups(last), edge_groups = all_edge_groups(last);
  Checksums table(*sums);
  PageWriter node_pages(*nodes, table, Summed::kNodes, node_arena);
  PageWriter edge_pages(*edges, table, Summed::kEdges, edge_arena);
  auto grow = [](File& file, const Arena& arena, int64_t held, int64_t wanted, int64_t bytes,
                 PageWriter& pages) {
    if (file.size() > kHeaderBytes + held * bytes) file.resize(kHeaderBytes + held * bytes);
    if (wanted > held) file.resize(kHeaderBytes + wanted * bytes);
    // From where memory has no file under it, so that the file can be laid there.
    int64_t first = held * bytes;
    if (arena.file_bytes()) first = std::min(first, arena.file_bytes() - kHeaderBytes);
    pages.add_pages(first / kPageBytes, wanted * bytes / kPageBytes);
  };
  try {
    grow(*nodes, node_arena, node_file_groups, node_groups, group_bytes, node_pages);
    grow(*edges, edge_arena, edge_file_groups, edge_groups, kEdgeGroupBytes, edge_pages);
    uint64_t events = slot.event_count, first_changed_event = events;
    bool any_state = false;
    std::vector<Record> batch;
    int64_t batch_bytes = 0;
    auto lay_batch = [&] {
      node_pages.flush();
      edge_pages.flush();
      batch.clear();
      batch_bytes = 0;
    };
    for (const JournalEntry& entry : journal.entries()) {
      batch.push_back(journal.read(entry));
      const Record& record = batch.back();
      record.for_each_range([&](const Range& range, const uint8_t* lines) {
        if (journal.superseded(entry, range)) return;
        switch (range.target) {
          case Target::kNodes:
            node_pages.add(range, lines);
            break;
          case Target::kEdges:
            edge_pages.add(range, lines);
            break;
          case Target::kState:
            state_file->write_at(lines, range.count * kLineBytes, kHeaderBytes + range.first * kLineBytes);
            any_state = true;
            break;
        }
      });
      events = entry.header.kept_events;
      first_changed_event = std::min(first_changed_event, events);
      if (entry.header.new_events) {
        log->write_at(record.events(), static_cast<int64_t>(entry.header.new_events) * kEventBytes,
                      static_cast<int64_t>(events) * kEventBytes);
        events += entry.header.new_events;
      }
      batch_bytes += static_cast<int64_t>(entry.header.total_bytes);
      if (batch_bytes >= kBatchBytes) lay_batch();
    }
    lay_batch();
    int64_t state_end = kHeaderBytes + round_up(static_cast<int64_t>(last.state_bytes), kLineBytes);
    if (any_state || state_file->size() != state_end) state_file->resize(state_end);
    if (int64_t end = static_cast<int64_t>(events) * kEventBytes; log->size() > end) log->resize(end);

    if (events != slot.event_count || first_changed_event != events) {
      resum_log(*log, table, static_cast<int64_t>(first_changed_event) * kEventBytes,
                static_cast<int64_t>(events) * kEventBytes);
      log->sync();
    }
    for (File* file : {nodes.get(), edges.get(), state_file.get(), sums.get(), journal_file.get()}) {
      write_stamp(*file, journal.chain());
      file->sync();
    }
    MetaSlot next = slot;
    next.epoch = slot.epoch + 1;
    next.chain = journal.chain();
    set_counters(next, counters_of(last));
    next.node_groups = static_cast<uint64_t>(node_groups);
    next.edge_groups = static_cast<uint64_t>(edge_groups);
    next.state_bytes = last.state_bytes;
    next.state_crc = last.state_crc;
    write_slot(*meta, next);
    seal(next);

    if (uint64_t in_log = std::min(events, kept_events); in_log > log_events) {
      auto bytes = static_cast<std::ptrdiff_t>(
          std::min<uint64_t>((in_log - log_events) * kEventBytes, recent_events.size()));
      recent_events.erase(recent_events.begin(), recent_events.begin() + bytes);
      log_events = in_log;
    }
    slot = next;
    node_file_groups = node_groups;
    edge_file_groups = edge_groups;
    journal.begin(*journal_file, slot);
    node_arena.settle(*nodes, node_pages.same_runs(), kHeaderBytes + node_groups * group_bytes);
    edge_arena.settle(*edges, edge_pages.same_runs(), kHeaderBytes + edge_groups * kEdgeGroupBytes);
  } catch (const SyncError& error) {
    refusing = error.what();
    throw;
  }
  return true;
}

}  // namespace aesg::storage
