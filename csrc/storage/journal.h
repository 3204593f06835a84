// journal.aesg: commits since the last fold, one record each, one behind the other from byte 4096 on.
//
// A record is written once, then synced, before the next one begins. So only the last can be torn, and an
// unsound record with a sound one behind it is damage, not a crash.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/storage/file.h"
#include "csrc/storage/format.h"

namespace aesg::storage {

struct JournalEntry {
  int64_t offset;       // in the file
  RecordHeader header;  // sound
};

// One record in memory, its parts checked against its header and against the layout.
class Record {
 public:
  // Takes the payload of a record whose checksums held. Throws StorageError where its parts do not fit.
  Record(const RecordHeader& header, std::vector<uint8_t> payload, const NodeLayout& layout);

  const RecordHeader& header() const { return header_; }
  const uint8_t* events() const { return events_; }
  // each(range, bytes of its lines)
  template <typename Each>
  void for_each_range(Each each) const {
    const uint8_t* at = lines_;
    for (const Range& range : ranges_) {
      each(range, at);
      at += range.count * kLineBytes;
    }
  }

 private:
  RecordHeader header_;
  std::vector<uint8_t> payload_;
  std::vector<Range> ranges_;
  const uint8_t* lines_ = nullptr;
  const uint8_t* events_ = nullptr;
};

class Journal {
 public:
  explicit Journal(const NodeLayout& layout) : layout_(layout) {}

  // Starts at the end of what `slot` stands for: no entries. The file must outlive the journal.
  void begin(File& file, const MetaSlot& slot);
  // Reads what was appended behind the entries known so far. Returns whether there was any. Throws
  // StorageError on damage, on records of another history and on commits that cannot be.
  bool scan();

  const std::vector<JournalEntry>& entries() const { return entries_; }
  uint64_t epoch() const { return epoch_; }
  uint64_t chain() const { return chain_; }  // of the last entry, or of the slot
  bool knows_chain(uint64_t chain) const;    // the slot's or any entry's
  int64_t end() const { return end_; }       // where the next record goes
  // State after the last entry.
  Counters counters() const { return counters_of(last_); }
  const RecordHeader& last() const { return last_; }

  Record read(const JournalEntry& entry);

  // Where an entry's range has to be left out: a later bulk commit wrote that group's file bytes anew.
  bool superseded(const JournalEntry& entry, const Range& range) const;

  // Called with a sealed record that was written at end() and synced.
  void append(const RecordHeader& header);

 private:
  // A sound record at `offset` that follows `last_`: fills header, returns true. Payload checked too.
  bool sound_at(int64_t offset, int64_t file_bytes, RecordHeader* header);
  bool sound_header_behind(int64_t offset, int64_t file_bytes);
  void check(const RecordHeader& header);

  File* file_ = nullptr;
  NodeLayout layout_;
  std::vector<JournalEntry> entries_;
  RecordHeader last_{};  // generation, counts, groups, state as of the end; magic and sizes unused
  uint64_t epoch_ = 0;
  uint64_t chain_ = 0;
  uint64_t base_chain_ = 0;
  int64_t end_ = kHeaderBytes;
  std::vector<uint64_t> chains_;
};

}  // namespace aesg::storage
