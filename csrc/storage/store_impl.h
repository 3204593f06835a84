// The inside of a Store, shared by store.cpp (calls), store_open.cpp, store_commit.cpp, store_fold.cpp,
// store_read.cpp, store_copy.cpp and store_verify.cpp.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "csrc/storage/arena.h"
#include "csrc/storage/checksums.h"
#include "csrc/storage/dirty.h"
#include "csrc/storage/file.h"
#include "csrc/storage/format.h"
#include "csrc/storage/journal.h"
#include "csrc/storage/lock.h"
#include "csrc/storage/meta.h"
#include "csrc/storage/store.h"

namespace aesg::storage {

struct Store::Impl {
  Impl(const OpenOptions& options, FileSystem& file_system, int64_t dim);

  // store.cpp
  void stamp(std::vector<uint64_t>& stamps, int64_t first, int64_t last);  // groups [first, last)
  void stamp_all();                                                        // everything was replaced

  // store_open.cpp
  void open_files();  // all but LOCK; checks headers, stamps and lengths, scans the journal
  void check_stamps();
  void map_files();                   // main files as of the last fold, the journal laid over them
  void lay_over(size_t first_entry);  // journal entries [first_entry, ...) into memory
  void secure_journal();              // writer: makes the scanned records durable when no fold can
  void drop_leftovers();              // writer: bytes behind the row groups that are committed
  bool refresh();

  // store_commit.cpp
  uint64_t commit(const Counters& now);
  // Zeros behind a record that ends where the journal does: the next ones then change neither its length nor
  // its blocks, so that their syncs write data alone. Behind a long record the zeros save nothing, and from
  // fold_bytes on the journal begins anew.
  void lengthen_journal(int64_t end, int64_t record_bytes);
  // Writes the record in `record_buffer` and makes it durable in one call; false where that is no gain: a
  // long record, or one for which the journal has no blocks yet.
  bool write_record_through();
  void require_writable() const;

  // store_fold.cpp: false when a reader keeps the gate
  bool fold();

  // store_read.cpp
  const std::vector<uint8_t>& state() const;
  std::vector<uint8_t> events(uint64_t first, uint64_t n, uint64_t count) const;
  bool log_tail_sound(uint32_t sum) const;

  std::string path(const char* name) const { return options.directory + "/" + name; }
  bool writer() const { return options.access == Access::kWrite; }

  OpenOptions options;
  FileSystem& fs;
  NodeLayout layout;
  Locks locks;
  std::unique_ptr<File> nodes, edges, log, state_file, sums, journal_file, meta;
  Journal journal;           // begins after open_files()
  int64_t journal_room = 0;  // the journal's file is at least so long, as of its last sync
  // The journal's last block, as long as `journal_blocks_end` is where the journal ends, and room for what a
  // short commit adds to it.
  alignas(kBlockBytes) uint8_t journal_blocks[16 * kBlockBytes];
  int64_t journal_blocks_end = 0;

  Arena node_arena, edge_arena;
  DirtyMap node_dirty, edge_dirty;
  // Of the groups so far marked, see Store::vector_stamps().
  std::vector<uint64_t> vector_stamps, group_stamps, learnt_stamps, block_stamps, cold_stamps;
  uint64_t stamp_clock = 0;

  MetaSlot slot{};               // of the last fold
  Counters committed{};          // of the last commit
  void take_committed();         // what the journal's end says
  int64_t node_file_groups = 0;  // row groups the main files hold as of the last commit
  int64_t edge_file_groups = 0;

  // Events 0..log_events-1 are read from the log; behind them the committed ones of the journal, then staged
  // ones.
  uint64_t log_events = 0;
  std::vector<uint8_t> recent_events;
  uint64_t kept_events = 0;          // committed events that stay: all, unless the log is being replaced
  void keep_events(uint64_t count);  // drops those behind the first `count`

  mutable bool state_loaded = false;  // small state is read when first asked for
  mutable std::vector<uint8_t> committed_state;
  mutable std::vector<uint8_t> staged_state;
  bool state_staged = false;

  std::vector<uint8_t> record_buffer;  // of the last commit, at most a few MiB, for the next one

  bool closed = false;
  std::string refusing;  // why no commit can succeed any more
};

}  // namespace aesg::storage
