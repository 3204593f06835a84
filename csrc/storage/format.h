// What lies in the files beside the columns: file headers, meta slots, journal records. docs/store_format.md
// tells the whole; all numbers are little-endian.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "csrc/base/crc32c.h"
#include "csrc/storage/layout.h"
#include "csrc/storage/store.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the files are mapped as they are: only little-endian machines can"
#endif

namespace aesg::storage {

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint32_t kEndianTag = 0x01020304;
inline constexpr int64_t kMaxDim = 8192;
inline constexpr int64_t kMaxRows = (int64_t{1} << 31) - 2;  // slots and blocks are i32; -(next) - 2 must fit
inline constexpr int64_t kPageBytes = 4096;                  // what one checksum covers
inline constexpr int64_t kLineBytes = 64;                    // what one dirty bit covers
inline constexpr int64_t kEventBytes = 32;

namespace names {
inline constexpr char kNodes[] = "nodes.aesg";
inline constexpr char kEdges[] = "edges.aesg";
inline constexpr char kMeta[] = "meta.npy";
inline constexpr char kNewMeta[] = "meta.npy.new";
inline constexpr char kLog[] = "evolution.aesglog";
inline constexpr char kState[] = "state.aesg";
inline constexpr char kJournal[] = "journal.aesg";
inline constexpr char kSums[] = "checksums.aesg";
inline constexpr char kLock[] = "LOCK";
}  // namespace names

// First 64 bytes of nodes, edges, state, checksums and journal. Written once.
struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t endian;
  uint64_t vector_dim;
  uint8_t reserved[36];
  uint32_t crc;  // of the 60 bytes before
};
static_assert(sizeof(FileHeader) == 64);

// Next 64 bytes: which history the file belongs to, so that files of two directories cannot be mixed. Written
// by every fold. The rest of the header page is zero.
struct FileStamp {
  uint64_t chain;  // chain value of the last commit folded in
  uint8_t reserved[52];
  uint32_t crc;  // of the 60 bytes before
};
static_assert(sizeof(FileStamp) == 64);

// One of the two slots of meta.npy; the one with the higher epoch holds.
struct MetaSlot {
  char magic[8];
  uint32_t version;
  uint32_t endian;
  uint64_t vector_dim;
  uint64_t epoch;  // folds so far; slot epoch % 2
  uint64_t chain;  // hash of every commit so far
  uint64_t generation;
  uint64_t node_count;
  uint64_t active_count;
  uint64_t edge_count;
  uint64_t block_count;
  uint64_t next_id;
  int64_t free_slot;
  int64_t free_block;
  uint64_t event_count;
  uint64_t node_groups;  // row groups the main files hold; more than the counts need after a restore
  uint64_t edge_groups;
  uint64_t state_bytes;
  uint32_t state_crc;
  uint8_t reserved[3952];
  uint32_t crc;  // of the 4092 bytes before
};
static_assert(sizeof(MetaSlot) == 4096);

inline constexpr int64_t kMetaBytes = 3 * 4096;  // npy header, two slots

// One commit in the journal: header, ranges (u64 each, filled up to a line), lines of the ranges, events,
// filled up to a line.
struct RecordHeader {
  char magic[8];
  uint64_t epoch;        // of the meta slot it adds to: records from before a fold are never replayed
  uint64_t generation;   // one more than the record before
  uint64_t chain;        // chain value of the commit before
  uint64_t total_bytes;  // header and payload
  uint64_t node_count;
  uint64_t active_count;
  uint64_t edge_count;
  uint64_t block_count;
  uint64_t next_id;
  int64_t free_slot;
  int64_t free_block;
  uint64_t event_count;  // after this commit
  uint64_t node_groups;  // row groups the main files hold: larger than before when a bulk commit wrote some
  uint64_t edge_groups;
  uint64_t state_bytes;  // after this commit
  uint64_t range_count;
  uint64_t kept_events;  // events of before that stay; new_events follow them
  uint64_t new_events;
  uint32_t state_crc;
  uint32_t payload_crc;
  uint8_t reserved[28];
  uint32_t crc;  // of the 188 bytes before
};
static_assert(sizeof(RecordHeader) == 192);

// Which file a journal range belongs to.
enum class Target : uint64_t { kNodes = 0, kEdges = 1, kState = 2 };

// target 2 bits | line count 22 bits | first line 40 bits, counted from the end of the header page.
struct Range {
  Target target;
  int64_t first;
  int64_t count;
};
inline constexpr int64_t kMaxRangeLines = (int64_t{1} << 22) - 1;

inline uint64_t pack(const Range& r) {
  return static_cast<uint64_t>(r.target) << 62 | static_cast<uint64_t>(r.count) << 40 |
         static_cast<uint64_t>(r.first);
}
inline Range unpack(uint64_t word) {
  return {static_cast<Target>(word >> 62), static_cast<int64_t>(word & ((uint64_t{1} << 40) - 1)),
          static_cast<int64_t>(word >> 40 & ((uint64_t{1} << 22) - 1))};
}

// Seals and checks structures whose last member is the CRC of all before it.
template <typename T>
void seal(T& t) {
  t.crc = crc32c(0, &t, sizeof(T) - sizeof(uint32_t));
}
template <typename T>
bool sealed(const T& t) {
  return t.crc == crc32c(0, &t, sizeof(T) - sizeof(uint32_t));
}

inline bool has_magic(const char (&field)[8], const char* magic) { return std::memcmp(field, magic, 8) == 0; }

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
inline int64_t groups_for(uint64_t rows) {
  return (static_cast<int64_t>(rows) + kGroupRows - 1) / kGroupRows;
}
// Row groups of a committed state: those in the file, and those that only the journal holds.
template <typename Committed>
int64_t all_node_groups(const Committed& c) {
  return std::max(static_cast<int64_t>(c.node_groups), groups_for(c.node_count));
}
template <typename Committed>
int64_t all_edge_groups(const Committed& c) {
  return std::max(static_cast<int64_t>(c.edge_groups), groups_for(c.block_count));
}

// Identity of a history: the chain value before the first commit, and after one more.
inline uint64_t mix(uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
inline uint64_t first_chain(int64_t dim) { return mix(0x61657367u + (static_cast<uint64_t>(dim) << 32)); }
inline uint64_t next_chain(const RecordHeader& r) {
  return mix(r.chain + 0x9E3779B97F4A7C15u + (static_cast<uint64_t>(r.payload_crc) << 32 | r.crc));
}

template <typename Record>
Counters counters_of(const Record& r) {
  return {r.generation, r.node_count, r.active_count, r.edge_count, r.block_count,
          r.next_id,    r.free_slot,  r.free_block,   r.event_count};
}
template <typename Record>
void set_counters(Record& r, const Counters& c) {
  r.generation = c.generation;
  r.node_count = c.node_count;
  r.active_count = c.active_count;
  r.edge_count = c.edge_count;
  r.block_count = c.block_count;
  r.next_id = c.next_id;
  r.free_slot = c.free_slot;
  r.free_block = c.free_block;
  r.event_count = c.event_count;
}
// What every committed state fulfils; empty when it does, else what is wrong.
std::string implausible(const Counters& counters);

class File;
// The header page of a file: written at its creation, checked at every opening.
struct HeaderPage {
  FileHeader header;
  FileStamp stamp;
  uint8_t rest[kHeaderBytes - sizeof(FileHeader) - sizeof(FileStamp)];
};
static_assert(sizeof(HeaderPage) == kHeaderBytes);

HeaderPage make_header_page(const char* magic, int64_t dim, uint64_t chain);
void write_stamp(File& file, uint64_t chain);
// Throws StorageError: not ours, newer, another dim, damaged. Returns the stamp; *stamp_sound says whether
// its checksum held (a crash in the middle of a fold may tear it).
uint64_t check_header_page(File& file, const char* magic, int64_t dim, bool* stamp_sound);

inline constexpr char kNodesMagic[] = "AESGNODE";
inline constexpr char kEdgesMagic[] = "AESGEDGE";
inline constexpr char kStateMagic[] = "AESGSTAT";
inline constexpr char kSumsMagic[] = "AESGSUMS";
inline constexpr char kJournalMagic[] = "AESGJRNL";
inline constexpr char kMetaMagic[] = "AESGMETA";
inline constexpr char kRecordMagic[] = "AESGTXN1";

}  // namespace aesg::storage
