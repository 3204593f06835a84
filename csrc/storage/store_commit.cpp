// Commit: what was marked becomes one journal record, written once and synced once.
#include <unistd.h>

#include <algorithm>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {

constexpr int64_t kChunkBytes = 4 << 20;
// Bytes summed and then written in one go: few enough to be still in the cache when they are written.
constexpr int64_t kDirectBytes = 256 << 10;

// Gathers a record and writes it behind the journal's end. Up to one chunk goes out in a single write; of a
// longer one the header goes last. (The order is of no consequence: the checksums hold only when all is
// there.)
class RecordWriter {
 public:
  // The buffer is the caller's, so that its pages are made once.
  RecordWriter(File& file, int64_t offset, std::vector<uint8_t>& buffer)
      : file_(file), offset_(offset), buffer_(buffer) {
    buffer_.assign(sizeof(RecordHeader), 0);
  }

  void add(const void* data, int64_t bytes) {
    const auto* p = static_cast<const uint8_t*>(data);
    if (bytes >= kChunkBytes) {  // as it lies, not through the buffer
      flush();
      for (; bytes > 0; p += kDirectBytes, bytes -= kDirectBytes) hand_out(p, std::min(bytes, kDirectBytes));
      return;
    }
    buffer_.insert(buffer_.end(), p, p + bytes);
    if (static_cast<int64_t>(buffer_.size()) >= kChunkBytes) flush();
  }
  void fill_line() {
    int64_t rest = (written_ + static_cast<int64_t>(buffer_.size())) % kLineBytes;
    if (rest) buffer_.resize(buffer_.size() + static_cast<size_t>(kLineBytes - rest));
  }
  // True when the record is whole in the buffer, and still to be written from there.
  bool finish(RecordHeader* header) {
    header->total_bytes = static_cast<uint64_t>(written_) + buffer_.size();
    if (written_ == 0) {
      header->payload_crc = crc32c(0, buffer_.data() + sizeof *header, buffer_.size() - sizeof *header);
      seal(*header);
      std::memcpy(buffer_.data(), header, sizeof *header);
      return true;
    } else {
      flush();
      header->payload_crc = crc_;
      seal(*header);
      file_.write_at(header, sizeof *header, offset_);
      return false;
    }
  }

 private:
  void flush() {
    int64_t skip = written_ == 0 ? static_cast<int64_t>(sizeof(RecordHeader)) : 0;
    written_ += skip;
    hand_out(buffer_.data() + skip, static_cast<int64_t>(buffer_.size()) - skip);
    buffer_.clear();
  }
  void hand_out(const uint8_t* data, int64_t bytes) {
    if (bytes == 0) return;
    crc_ = crc32c(crc_, data, static_cast<size_t>(bytes));
    file_.write_at(data, bytes, offset_ + written_);
    written_ += bytes;
  }

  File& file_;
  int64_t offset_;
  int64_t written_ = 0;  // bytes of the record handed out, the header's place included
  uint32_t crc_ = 0;
  std::vector<uint8_t>& buffer_;
};

void add_range(std::vector<Range>& ranges, Target target, int64_t first, int64_t count) {
  for (; count > kMaxRangeLines; first += kMaxRangeLines, count -= kMaxRangeLines) {
    ranges.push_back({target, first, kMaxRangeLines});
  }
  ranges.push_back({target, first, count});
}

// Lines of the new small state that differ from the committed one; both seen as filled up with zeros.
void add_state_ranges(std::vector<Range>& ranges, const std::vector<uint8_t>& before,
                      const std::vector<uint8_t>& after) {
  int64_t lines = round_up(static_cast<int64_t>(after.size()), kLineBytes) / kLineBytes;
  int64_t lines_before = round_up(static_cast<int64_t>(before.size()), kLineBytes) / kLineBytes;
  auto line_of = [](const std::vector<uint8_t>& bytes, int64_t line, uint8_t* out) {
    size_t at = static_cast<size_t>(line * kLineBytes);
    std::memset(out, 0, kLineBytes);
    std::memcpy(out, bytes.data() + at, std::min<size_t>(kLineBytes, bytes.size() - at));
  };
  int64_t run = 0;
  uint8_t a[kLineBytes], b[kLineBytes];
  for (int64_t line = 0; line <= lines; ++line) {
    bool differs = line < lines;
    if (line < std::min(lines, lines_before)) {
      line_of(before, line, a);
      line_of(after, line, b);
      differs = std::memcmp(a, b, kLineBytes) != 0;
    }
    if (differs) {
      ++run;
    } else if (run) {
      add_range(ranges, Target::kState, line - run, run);
      run = 0;
    }
  }
}

// Row groups [first, last) to a file beyond what any commit refers to, their checksums too; both synced.
void write_groups(File& file, Checksums sums, Summed which, const uint8_t* base, int64_t group_bytes,
                  int64_t first, int64_t last) {
  const int64_t end = last * group_bytes;
  for (int64_t at = first * group_bytes; at < end; at += kChunkBytes) {
    int64_t bytes = std::min(kChunkBytes, end - at);
    sums.write(which, at / kPageBytes, page_sums(base + at, bytes));
    file.write_at(base + at, bytes, kHeaderBytes + at);
    file.begin_sync(kHeaderBytes + at, bytes);  // the disk works while the next chunk is summed
  }
  file.sync();
}

}  // namespace

void Store::Impl::lengthen_journal(int64_t end, int64_t record_bytes) {
  if (end < journal_room) return;
  constexpr int64_t kLong = 64 << 10;
  if (record_bytes >= kLong) return;
  journal_room = journal_file->size();
  if (end < journal_room) return;
  constexpr int64_t kLeast = 256 << 10, kMost = 4 << 20;
  const int64_t more = std::min(std::clamp(end, kLeast, kMost), options.fold_bytes - end);
  if (more <= 0) return;
  std::vector<uint8_t> zeros(static_cast<size_t>(more));
  try {
    journal_file->write_at(zeros.data(), more, end);
    journal_room = end + more;
  } catch (const StorageError&) {
    // Only for speed; the record itself is already written.
  }
}

bool Store::Impl::write_record_through() {
  const int64_t begin = journal.end(), end = begin + static_cast<int64_t>(record_buffer.size());
  const int64_t first = begin / kBlockBytes * kBlockBytes, last = end / kBlockBytes * kBlockBytes;
  const int64_t bytes = round_up(end, kBlockBytes) - first;
  if (bytes > static_cast<int64_t>(sizeof journal_blocks) || first + bytes > journal_room) return false;
  if (journal_blocks_end != begin) journal_file->read_at(journal_blocks, begin - first, first);
  journal_blocks_end = 0;
  std::memcpy(journal_blocks + (begin - first), record_buffer.data(), record_buffer.size());
  std::memset(journal_blocks + (end - first), 0, static_cast<size_t>(first + bytes - end));
  journal_file->write_through(journal_blocks, bytes, first);
  std::memmove(journal_blocks, journal_blocks + (last - first), static_cast<size_t>(end - last));
  journal_blocks_end = end;
  return true;
}

void Store::Impl::require_writable() const {
  if (closed) throw StorageError("'" + options.directory + "' was closed");
  if (!writer()) throw StorageError("'" + options.directory + "' is open for reading only");
  if (locks.in_child()) {
    throw StorageError("'" + options.directory +
                       "' was opened before a fork: the child may not write; open it read-only there");
  }
}

uint64_t Store::Impl::commit(const Counters& now) {
  require_writable();
  if (!refusing.empty()) {
    throw StorageError("'" + options.directory + "' takes no commits any more after: " + refusing +
                       "; the last commit is of generation " + std::to_string(committed.generation) +
                       ": close the store and open it again");
  }
  if (journal_file->removed()) {
    throw StorageError("'" + options.directory + "' is gone: what is committed to it would be lost");
  }
  Counters next = now;
  next.generation = committed.generation + 1;
  if (std::string odd = implausible(next); !odd.empty()) {
    throw StorageError("'" + options.directory + "' cannot be committed: " + odd);
  }

  const int64_t node_groups = std::max(node_file_groups, groups_for(next.node_count));
  const int64_t edge_groups = std::max(edge_file_groups, groups_for(next.block_count));
  auto lines_of = [](const DirtyMap& dirty, int64_t first, int64_t last) {
    int64_t lines = 0;
    for (int64_t group : dirty.groups(last)) lines += group >= first ? dirty.lines(group) : 0;
    return lines;
  };
  RecordHeader record{};
  std::memcpy(record.magic, kRecordMagic, 8);
  record.epoch = journal.epoch();
  record.chain = journal.chain();
  set_counters(record, next);
  record.node_groups = static_cast<uint64_t>(node_file_groups);
  record.edge_groups = static_cast<uint64_t>(edge_file_groups);
  bool bulk_nodes = lines_of(node_dirty, node_file_groups, node_groups) * kLineBytes >= options.bulk_bytes;
  bool bulk_edges = lines_of(edge_dirty, edge_file_groups, edge_groups) * kLineBytes >= options.bulk_bytes;
  if (bulk_nodes) record.node_groups = static_cast<uint64_t>(node_groups);
  if (bulk_edges) record.edge_groups = static_cast<uint64_t>(edge_groups);

  std::vector<Range> ranges;
  auto add_dirty = [&](const DirtyMap& dirty, Target target, int64_t lines_a_group, int64_t limit) {
    for (int64_t group : dirty.groups(limit)) {
      dirty.for_each_run(group, [&](int64_t first, int64_t count) {
        add_range(ranges, target, group * lines_a_group + first, count);
      });
    }
  };
  add_dirty(node_dirty, Target::kNodes, layout.group_bytes() / kLineBytes,
            bulk_nodes ? node_file_groups : node_groups);
  add_dirty(edge_dirty, Target::kEdges, kEdgeGroupBytes / kLineBytes,
            bulk_edges ? edge_file_groups : edge_groups);
  record.state_bytes = journal.last().state_bytes;
  record.state_crc = journal.last().state_crc;
  if (state_staged) {
    add_state_ranges(ranges, committed_state, staged_state);
    record.state_bytes = staged_state.size();
    record.state_crc = crc32c(0, staged_state.data(), staged_state.size());
  }
  record.range_count = ranges.size();
  record.kept_events = kept_events;
  record.new_events = next.event_count - kept_events;

  Counters unchanged = next;
  unchanged.generation = committed.generation;
  if (ranges.empty() && !bulk_nodes && !bulk_edges && record.state_bytes == journal.last().state_bytes &&
      kept_events == committed.event_count && std::memcmp(&unchanged, &committed, sizeof committed) == 0) {
    return committed.generation;
  }

  try {
    if (bulk_nodes || bulk_edges) {
      // What an earlier attempt or a crash left there is overwritten or cut off.
      drop_leftovers();
      Checksums table(*sums);
      if (bulk_nodes) {
        write_groups(*nodes, table, Summed::kNodes, node_arena.base() + kHeaderBytes, layout.group_bytes(),
                     node_file_groups, node_groups);
      }
      if (bulk_edges) {
        write_groups(*edges, table, Summed::kEdges, edge_arena.base() + kHeaderBytes, kEdgeGroupBytes,
                     edge_file_groups, edge_groups);
      }
      sums->sync();
    }
    RecordWriter out(*journal_file, journal.end(), record_buffer);
    for (const Range& range : ranges) {
      uint64_t word = pack(range);
      out.add(&word, sizeof word);
    }
    out.fill_line();
    for (const Range& range : ranges) {
      int64_t offset = range.first * kLineBytes, bytes = range.count * kLineBytes;
      switch (range.target) {
        case Target::kNodes:
          out.add(node_arena.base() + kHeaderBytes + offset, bytes);
          break;
        case Target::kEdges:
          out.add(edge_arena.base() + kHeaderBytes + offset, bytes);
          break;
        case Target::kState: {
          int64_t inside = std::min(bytes, static_cast<int64_t>(staged_state.size()) - offset);
          out.add(staged_state.data() + offset, inside);
          out.fill_line();
          break;
        }
      }
    }
    if (record.new_events) {
      out.add(recent_events.data() + (kept_events - log_events) * kEventBytes,
              static_cast<int64_t>(record.new_events) * kEventBytes);
    }
    out.fill_line();
    const bool in_buffer = out.finish(&record);
    if (!in_buffer || !write_record_through()) {
      const auto record_bytes = static_cast<int64_t>(record.total_bytes);
      if (in_buffer) journal_file->write_at(record_buffer.data(), record_bytes, journal.end());
      lengthen_journal(journal.end() + record_bytes, record_bytes);
      journal_file->sync();
      journal_blocks_end = 0;
    }
  } catch (const SyncError& error) {
    refusing = error.what();
    try {
      // The failed commit must not come back to life from the page cache when the directory is read again.
      RecordHeader blank{};
      journal_file->write_at(&blank, sizeof blank, journal.end());
    } catch (const StorageError&) {
    }
    throw;
  }

  journal.append(record);
  committed = next;
  kept_events = next.event_count;
  auto written = [](Arena& arena, File& file, int64_t first, int64_t last, int64_t group_bytes) {
    const int64_t end = kHeaderBytes + last * group_bytes;
    arena.settle(file, {{kHeaderBytes + first * group_bytes, end}}, end);
  };
  if (bulk_nodes) written(node_arena, *nodes, node_file_groups, node_groups, layout.group_bytes());
  if (bulk_edges) written(edge_arena, *edges, edge_file_groups, edge_groups, kEdgeGroupBytes);
  node_file_groups = static_cast<int64_t>(record.node_groups);
  edge_file_groups = static_cast<int64_t>(record.edge_groups);
  node_dirty.clear_below(node_groups);
  edge_dirty.clear_below(edge_groups);
  if (state_staged) {
    committed_state = std::move(staged_state);
    staged_state = {};
    state_staged = false;
  }
  if (journal.end() > options.fold_bytes) {
    try {
      fold();
    } catch (const StorageError&) {
      // This commit stands. A failed sync is remembered in `refusing`; anything else is tried again later.
    }
  }
  return committed.generation;
}

}  // namespace aesg::storage
