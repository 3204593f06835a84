#include "csrc/storage/journal.h"

#include <algorithm>

namespace aesg::storage {
namespace {

constexpr int64_t kRecordHeader = sizeof(RecordHeader);

}  // namespace

Record::Record(const RecordHeader& header, std::vector<uint8_t> payload, const NodeLayout& layout)
    : header_(header), payload_(std::move(payload)) {
  auto bad = [&](const std::string& why) {
    throw StorageError("journal record of generation " + std::to_string(header.generation) + ": " + why);
  };
  const uint64_t bytes = payload_.size();
  if (header.range_count > bytes / 8) bad("more ranges than fit it");
  const int64_t table = round_up(static_cast<int64_t>(header.range_count) * 8, kLineBytes);
  if (static_cast<uint64_t>(table) > bytes) bad("more ranges than fit it");
  const int64_t node_lines = layout.group_bytes() / kLineBytes, edge_lines = kEdgeGroupBytes / kLineBytes;
  int64_t lines = 0;
  ranges_.reserve(header.range_count);
  for (uint64_t i = 0; i < header.range_count; ++i) {
    uint64_t word;
    std::memcpy(&word, payload_.data() + i * 8, 8);
    Range r = unpack(word);
    int64_t limit = 0, unit = 0;
    switch (r.target) {
      case Target::kNodes:
        unit = node_lines, limit = unit * all_node_groups(header);
        break;
      case Target::kEdges:
        unit = edge_lines, limit = unit * all_edge_groups(header);
        break;
      case Target::kState:
        limit = unit = round_up(static_cast<int64_t>(header.state_bytes), kLineBytes) / 64;
        break;
      default:
        bad("a range of no known file");
    }
    if (r.count == 0 || r.first + r.count > limit || r.first / unit != (r.first + r.count - 1) / unit) {
      bad("a range outside its file");
    }
    lines += r.count;
    ranges_.push_back(r);
  }
  const int64_t rest = static_cast<int64_t>(bytes) - table;
  if (lines > rest / kLineBytes) bad("ranges longer than it");
  if (header.new_events > static_cast<uint64_t>(rest) / kEventBytes ||
      rest !=
          round_up(lines * kLineBytes + static_cast<int64_t>(header.new_events) * kEventBytes, kLineBytes)) {
    bad("its parts do not fill it");
  }
  lines_ = payload_.data() + table;
  events_ = lines_ + lines * kLineBytes;
}

void Journal::begin(File& file, const MetaSlot& slot) {
  file_ = &file;
  entries_.clear();
  chains_.clear();
  last_ = RecordHeader{};
  set_counters(last_, counters_of(slot));
  last_.node_groups = slot.node_groups;
  last_.edge_groups = slot.edge_groups;
  last_.state_bytes = slot.state_bytes;
  last_.state_crc = slot.state_crc;
  epoch_ = slot.epoch;
  chain_ = base_chain_ = slot.chain;
  end_ = kHeaderBytes;
}

bool Journal::knows_chain(uint64_t chain) const {
  return chain == base_chain_ || std::find(chains_.begin(), chains_.end(), chain) != chains_.end();
}

bool Journal::sound_at(int64_t offset, int64_t file_bytes, RecordHeader* header) {
  if (offset + kRecordHeader > file_bytes) return false;
  file_->read_at(header, kRecordHeader, offset);
  if (!has_magic(header->magic, kRecordMagic) || !sealed(*header)) return false;
  if (header->epoch < epoch_) return false;  // from before the last fold
  if (header->epoch > epoch_ || header->chain != chain_ || header->generation != last_.generation + 1) {
    if (header->epoch == epoch_ && header->generation <= last_.generation) return false;  // leftover
    throw StorageError("'" + file_->path() +
                       "' belongs to another history than meta.npy: its record at byte " +
                       std::to_string(offset) + " is of epoch " + std::to_string(header->epoch) +
                       ", generation " + std::to_string(header->generation) + ", expected " +
                       std::to_string(epoch_) + " and " + std::to_string(last_.generation + 1));
  }
  if (header->total_bytes < sizeof(RecordHeader) || header->total_bytes % kLineBytes != 0 ||
      header->total_bytes > static_cast<uint64_t>(file_bytes - offset)) {
    return false;
  }
  constexpr int64_t kChunk = 1 << 20;
  std::vector<uint8_t> buffer(
      static_cast<size_t>(std::min(kChunk, static_cast<int64_t>(header->total_bytes) - kRecordHeader)));
  uint32_t crc = 0;
  for (int64_t at = kRecordHeader; at < static_cast<int64_t>(header->total_bytes); at += kChunk) {
    int64_t n = std::min(kChunk, static_cast<int64_t>(header->total_bytes) - at);
    file_->read_at(buffer.data(), n, offset + at);
    crc = crc32c(crc, buffer.data(), static_cast<size_t>(n));
  }
  return crc == header->payload_crc;
}

// Whether a later commit of this epoch lies behind `offset`: then what is unsound there was once committed.
bool Journal::sound_header_behind(int64_t offset, int64_t file_bytes) {
  constexpr int64_t kChunk = 1 << 20;
  std::vector<uint8_t> buffer(static_cast<size_t>(kChunk + kRecordHeader));
  for (int64_t at = offset + kLineBytes; at + kRecordHeader <= file_bytes; at += kChunk) {
    int64_t n = file_->read_until_end(buffer.data(), kChunk + kRecordHeader, at);
    for (int64_t i = 0; i + kRecordHeader <= n && i < kChunk; i += kLineBytes) {
      if (std::memcmp(buffer.data() + i, kRecordMagic, 8) != 0) continue;
      RecordHeader header;
      std::memcpy(&header, buffer.data() + i, sizeof header);
      if (sealed(header) && header.epoch == epoch_ && header.generation > last_.generation + 1) return true;
    }
  }
  return false;
}

// What CRCs cannot tell: counts that no sequence of calls could have made.
void Journal::check(const RecordHeader& h) {
  std::string odd = implausible(counters_of(h));
  const int64_t journal_bytes = file_->size();
  auto groups = [&](const char* what, uint64_t rows, uint64_t file_groups, uint64_t file_groups_before,
                    int64_t journal_row_bytes) {
    if (file_groups > kMaxRows || file_groups < file_groups_before ||
        (file_groups > file_groups_before && file_groups > static_cast<uint64_t>(groups_for(rows)))) {
      odd = std::string(what) + ": " + std::to_string(file_groups) + " row groups in the file";
    }
    if (!odd.empty()) return;
    // Every row that is not in the file was written to the journal whole.
    int64_t outside = static_cast<int64_t>(rows) - static_cast<int64_t>(file_groups) * kGroupRows;
    if (outside > 0 && outside * journal_row_bytes > journal_bytes) {
      odd = std::string(what) + ": more new rows than the journal has room for";
    }
  };
  if (odd.empty()) {
    groups("node_count", h.node_count, h.node_groups, last_.node_groups, 4 * layout_.dim());
    groups("block_count", h.block_count, h.edge_groups, last_.edge_groups, 64);
    if (h.new_events > static_cast<uint64_t>(journal_bytes) / kEventBytes ||
        h.kept_events > last_.event_count || h.event_count != h.kept_events + h.new_events) {
      odd = "event_count does not follow";
    }
    if (h.state_bytes > last_.state_bytes + static_cast<uint64_t>(journal_bytes))
      odd = "state_bytes is too large";
  }
  if (!odd.empty()) {
    throw StorageError("'" + file_->path() + "', generation " + std::to_string(h.generation) + ": " + odd);
  }
}

bool Journal::scan() {
  bool any = false;
  for (;;) {
    int64_t bytes = file_->size();
    RecordHeader header;
    if (!sound_at(end_, bytes, &header)) {
      // A writer at work may have finished this record, and a next, while we looked: look once more.
      if (!sound_header_behind(end_, bytes)) return any;
      bytes = file_->size();
      if (!sound_at(end_, bytes, &header)) {
        throw StorageError("'" + file_->path() + "' is damaged: the record at byte " + std::to_string(end_) +
                           " is unsound, yet later ones follow");
      }
    }
    check(header);
    read({end_, header});  // throws where its parts do not fit
    append(header);
    any = true;
  }
}

Record Journal::read(const JournalEntry& entry) {
  std::vector<uint8_t> payload(entry.header.total_bytes - sizeof(RecordHeader));
  file_->read_at(payload.data(), static_cast<int64_t>(payload.size()), entry.offset + kRecordHeader);
  if (crc32c(0, payload.data(), payload.size()) != entry.header.payload_crc) {
    throw StorageError("'" + file_->path() + "' is damaged: the record at byte " +
                       std::to_string(entry.offset) + " has changed since it was read first");
  }
  return Record(entry.header, std::move(payload), layout_);
}

bool Journal::superseded(const JournalEntry& entry, const Range& range) const {
  int64_t group, then, now;
  switch (range.target) {
    case Target::kNodes:
      group = range.first / (layout_.group_bytes() / kLineBytes);
      then = static_cast<int64_t>(entry.header.node_groups);
      now = static_cast<int64_t>(last_.node_groups);
      return group >= then && group < now;
    case Target::kEdges:
      group = range.first / (kEdgeGroupBytes / kLineBytes);
      then = static_cast<int64_t>(entry.header.edge_groups);
      now = static_cast<int64_t>(last_.edge_groups);
      return group >= then && group < now;
    default:
      return false;
  }
}

void Journal::append(const RecordHeader& header) {
  entries_.push_back({end_, header});
  last_ = header;
  chain_ = next_chain(header);
  chains_.push_back(chain_);
  end_ += static_cast<int64_t>(header.total_bytes);
}

}  // namespace aesg::storage
