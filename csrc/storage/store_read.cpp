// Reading what is not mapped: the small state and the events.
#include <algorithm>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {

const std::vector<uint8_t>& Store::Impl::state() const {
  if (state_loaded) return committed_state;
  auto* self = const_cast<Impl*>(this);  // filling a cache
  // Never more than the files can hold, whatever they say.
  const auto limit = static_cast<uint64_t>(self->state_file->size() + self->journal_file->size());
  auto whole_lines = [&](uint64_t state_bytes) {
    if (state_bytes > limit) {
      throw StorageError("'" + path(names::kState) + "' is damaged: it should hold " +
                         std::to_string(state_bytes) + " bytes, all there are is " + std::to_string(limit));
    }
    return static_cast<size_t>(round_up(static_cast<int64_t>(state_bytes), kLineBytes));
  };
  std::vector<uint8_t> bytes(whole_lines(slot.state_bytes));
  self->state_file->read_until_end(bytes.data(), static_cast<int64_t>(bytes.size()), kHeaderBytes);
  for (const JournalEntry& entry : journal.entries()) {
    bytes.resize(whole_lines(entry.header.state_bytes));
    self->journal.read(entry).for_each_range([&](const Range& range, const uint8_t* lines) {
      if (range.target != Target::kState) return;
      std::memcpy(bytes.data() + range.first * kLineBytes, lines,
                  static_cast<size_t>(range.count * kLineBytes));
    });
  }
  bytes.resize(journal.last().state_bytes);
  if (crc32c(0, bytes.data(), bytes.size()) != journal.last().state_crc) {
    throw StorageError("'" + path(names::kState) + "' is damaged: its checksum is wrong");
  }
  committed_state = std::move(bytes);
  state_loaded = true;
  return committed_state;
}

// Whether `sum` fits the page in which the log's part of the events ends while the journal holds commits. It
// was summed by the last fold, over all that the log held then; or by one that was cut short, with events of
// the journal behind it.
bool Store::Impl::log_tail_sound(uint32_t sum) const {
  const int64_t begin = static_cast<int64_t>(log_events) * kEventBytes / kPageBytes * kPageBytes;
  const int64_t sure = static_cast<int64_t>(log_events) * kEventBytes - begin;
  const int64_t held = std::min(static_cast<int64_t>(slot.event_count) * kEventBytes - begin, kPageBytes);
  std::vector<uint8_t> page(kPageBytes);
  int64_t there = log->read_until_end(page.data(), held, begin);
  if (crc32c(0, page.data(), static_cast<size_t>(there)) == sum) return true;
  uint32_t crc = crc32c(0, page.data(), static_cast<size_t>(sure));
  int64_t at = sure;
  for (size_t i = 0; i < recent_events.size() && at < kPageBytes; i += kEventBytes, at += kEventBytes) {
    crc = crc32c(crc, recent_events.data() + i, kEventBytes);
    if (crc == sum) return true;
  }
  // A restore that shortens the log, cut short while it did: the journal alone tells the rest, and is sound.
  return log_events < slot.event_count;
}

std::vector<uint8_t> Store::Impl::events(uint64_t first, uint64_t n, uint64_t count) const {
  if (first > count || n > count - first) {
    throw ArgumentError("events: expected a range inside 0.." + std::to_string(count) + ", got " +
                        std::to_string(first) + " + " + std::to_string(n));
  }
  std::vector<uint8_t> result(n * kEventBytes);
  const uint64_t in_log = log_events;
  uint64_t from_log = first < in_log ? std::min(n, in_log - first) : 0;
  if (from_log) {
    // Whole pages, so that their checksums can be told.
    int64_t begin = static_cast<int64_t>(first) * kEventBytes / kPageBytes * kPageBytes;
    // The last page may be short; with commits in the journal its sum is a matter of its own.
    const bool settled = journal.entries().empty();
    int64_t log_bytes = static_cast<int64_t>(settled ? slot.event_count : in_log) * kEventBytes;
    int64_t end =
        std::min(round_up(static_cast<int64_t>(first + from_log) * kEventBytes, kPageBytes), log_bytes);
    std::vector<uint8_t> pages(static_cast<size_t>(end - begin));
    log->read_at(pages.data(), end - begin, begin);
    std::vector<uint32_t> found = page_sums(pages.data(), end - begin);
    std::vector<uint32_t> wanted =
        Checksums(*sums).read(Summed::kLog, begin / kPageBytes, static_cast<int64_t>(found.size()));
    if (!settled && end % kPageBytes != 0 && log_tail_sound(wanted.back())) wanted.back() = found.back();
    if (found != wanted) {
      throw StorageError("'" + path(names::kLog) + "' is damaged: a checksum of events " +
                         std::to_string(first) + ".." + std::to_string(first + from_log) + " is wrong");
    }
    std::memcpy(result.data(), pages.data() + (static_cast<int64_t>(first) * kEventBytes - begin),
                from_log * kEventBytes);
  }
  if (n > from_log) {
    std::memcpy(result.data() + from_log * kEventBytes,
                recent_events.data() + (first + from_log - in_log) * kEventBytes,
                (n - from_log) * kEventBytes);
  }
  return result;
}

}  // namespace aesg::storage
