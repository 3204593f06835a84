// Fold: the journal's records move into the main files, then meta.npy moves on and the journal begins anew.
//
// Every step can be cut short and done again: until meta names the next epoch the records hold, and laying a
// record over its own effects changes nothing.
#include <algorithm>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {

// Sorted, each once.
void unique(std::vector<int64_t>& pages) {
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
}

// Sums of the given pages anew, runs of neighbours together.
void resum(File& file, Checksums sums, Summed which, std::vector<int64_t>& pages) {
  unique(pages);
  for (size_t i = 0; i < pages.size();) {
    size_t end = i + 1;
    while (end < pages.size() && pages[end] == pages[end - 1] + 1) ++end;
    sums.write(which, pages[i], page_sums_of(file, pages[i], static_cast<int64_t>(end - i)));
    i = end;
  }
}

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
  std::vector<int64_t> node_pages, edge_pages;
  auto grow = [](File& file, int64_t held, int64_t wanted, int64_t bytes, std::vector<int64_t>& pages) {
    if (file.size() > kHeaderBytes + held * bytes) file.resize(kHeaderBytes + held * bytes);
    if (wanted > held) file.resize(kHeaderBytes + wanted * bytes);
    for (int64_t page = held * bytes / kPageBytes; page < wanted * bytes / kPageBytes; ++page) {
      pages.push_back(page);
    }
  };
  auto touch = [](std::vector<int64_t>& pages, const Range& range) {
    int64_t end = (range.first + range.count - 1) * kLineBytes / kPageBytes;
    for (int64_t page = range.first * kLineBytes / kPageBytes; page <= end; ++page) {
      if (pages.empty() || pages.back() != page) pages.push_back(page);
    }
  };
  try {
    grow(*nodes, node_file_groups, node_groups, group_bytes, node_pages);
    grow(*edges, edge_file_groups, edge_groups, kEdgeGroupBytes, edge_pages);
    uint64_t events = slot.event_count, first_changed_event = events;
    bool any_state = false;
    for (const JournalEntry& entry : journal.entries()) {
      Record record = journal.read(entry);
      record.for_each_range([&](const Range& range, const uint8_t* lines) {
        if (journal.superseded(entry, range)) return;
        int64_t offset = kHeaderBytes + range.first * kLineBytes, bytes = range.count * kLineBytes;
        switch (range.target) {
          case Target::kNodes:
            nodes->write_at(lines, bytes, offset);
            touch(node_pages, range);
            break;
          case Target::kEdges:
            edges->write_at(lines, bytes, offset);
            touch(edge_pages, range);
            break;
          case Target::kState:
            state_file->write_at(lines, bytes, offset);
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
    }
    int64_t state_end = kHeaderBytes + round_up(static_cast<int64_t>(last.state_bytes), kLineBytes);
    if (any_state || state_file->size() != state_end) state_file->resize(state_end);
    if (int64_t end = static_cast<int64_t>(events) * kEventBytes; log->size() > end) log->resize(end);

    Checksums table(*sums);
    resum(*nodes, table, Summed::kNodes, node_pages);
    resum(*edges, table, Summed::kEdges, edge_pages);
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
  } catch (const SyncError& error) {
    refusing = error.what();
    throw;
  }
  return true;
}

}  // namespace aesg::storage
