// Store: the files of one memory directory as live columns, with all-or-nothing commits.
//
// Reading is plain memory access. Whoever changes bytes says so with a mark_*() call; commit() writes what
// was marked. Nothing reaches the disk otherwise. Not thread safe: one thread changes, or many read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "csrc/storage/layout.h"

namespace aesg::storage {

class FileSystem;  // the I/O seam, csrc/storage/file.h

enum class Access { kWrite, kRead };

struct OpenOptions {
  std::string directory;
  int64_t vector_dim = 0;  // 0: what the directory says; an error where there is nothing yet
  Access access = Access::kWrite;
  FileSystem* file_system = nullptr;  // null: the real one
  int64_t fold_bytes = 64 << 20;      // a commit that leaves a longer journal folds it
  int64_t bulk_bytes = 1 << 20;  // this much in new row groups goes straight to their file, not the journal
};

// Everything about a store that is one number. Committed with the columns.
struct Counters {
  uint64_t generation = 0;    // commits so far
  uint64_t node_count = 0;    // slots in use, dead ones included; high-water mark, slots 0..node_count-1
  uint64_t active_count = 0;  // living concepts
  uint64_t edge_count = 0;
  uint64_t block_count = 0;  // edge blocks ever handed out, free ones included
  uint64_t next_id = 1;      // identity of the next concept
  int64_t free_slot = -1;    // head of the list of free slots
  int64_t free_block = -1;   // head of the list of free blocks
  uint64_t event_count = 0;  // events of 32 bytes in the log, staged ones included
};

enum class EventType : uint8_t {
  kCreate = 0,
  kMerge = 1,
  kSplit = 2,
  kPrune = 3,
  kConsolidate = 4,
  kRestructure = 5,
};

class Store {
 public:
  // Opens or makes the directory. Throws StorageError: not ours, other vector_dim (both named), a second
  // writer (its pid named), a newer format, a failed check. Writes nothing before every check has passed.
  static std::shared_ptr<Store> open(const OpenOptions& options);
  ~Store();  // gives up what was not committed

  const std::string& directory() const;
  bool read_only() const;
  bool closed() const;
  const NodeLayout& layout() const { return layout_; }
  const Counters& counters() const { return counters_; }
  Counters& counters() { return counters_; }  // for csrc/graph; committed with the next commit()

  // Row groups now mapped. Addresses never move: growth maps further groups behind the old ones.
  int64_t node_groups() const;
  int64_t block_groups() const;
  uint8_t* node_bytes() { return node_bytes_; }  // first group, not the header
  uint8_t* edge_bytes() { return edge_bytes_; }

  // Address of one value. Slots and blocks are not checked here.
  template <typename T>
  T* at(NodeColumn column, int64_t slot) {
    return reinterpret_cast<T*>(node_bytes_ + (slot / kGroupRows) * layout_.group_bytes() +
                                layout_.offset(column) + (slot % kGroupRows) * layout_.row_bytes(column));
  }
  HotBlock* hot(int64_t block) {
    return reinterpret_cast<HotBlock*>(edge_bytes_ + (block / kGroupRows) * kEdgeGroupBytes) +
           block % kGroupRows;
  }
  ColdBlock* cold(int64_t block) {
    return reinterpret_cast<ColdBlock*>(edge_bytes_ + (block / kGroupRows) * kEdgeGroupBytes +
                                        kHotGroupBytes) +
           block % kGroupRows;
  }

  // What was changed since the last commit.
  void mark(NodeColumn column, int64_t slot);
  void mark_rows(NodeColumn column, int64_t first, int64_t last);  // [first, last)
  void mark_hot(int64_t block);
  void mark_cold(int64_t block);
  // One number a group that rises whenever what it tells of may have changed there, for what is derived from
  // it or copied elsewhere; groups never marked may be missing at the end. Of row groups: the vectors, the
  // other columns that retrieval reads (see `is_looked_up`), and those that use changes (see `is_learnt`). Of
  // groups of blocks: their hot and their cold part.
  const std::vector<uint64_t>& vector_stamps() const;
  const std::vector<uint64_t>& group_stamps() const;
  const std::vector<uint64_t>& learnt_stamps() const;
  const std::vector<uint64_t>& block_stamps() const;
  const std::vector<uint64_t>& cold_stamps() const;
  uint64_t changes() const;  // the highest of all of them

  // Rows of the vector column marked since the last call, in order, some more than once: what an index beside
  // the store must look at anew. `all`: too many to list, or everything was replaced; so is the first call's
  // answer, which begins the watch. For one caller.
  struct VectorChanges {
    bool all = true;
    std::vector<int64_t> slots;
  };
  VectorChanges take_vector_changes();

  // A zeroed slot, taken from the free list or the end (the store grows as needed), with first_block = -1 and
  // all columns marked. The caller fills it and counts it (active_count); node_count is raised here.
  int64_t allocate_slot();
  // `n` slots in a row behind the last, all columns marked; the first of them. The caller writes every column
  // of each (they are zero but for what was written behind the end). Nothing is taken from the free list.
  int64_t append_slots(int64_t n);
  void free_slot(int64_t slot);  // REQUIRES: inactive, no edge from or into it
  // An empty block (targets and next -1, source -1) marked in both parts.
  int32_t allocate_block();
  void free_block(int32_t block);
  void reserve_nodes(int64_t more);  // room for `more` slots at the end, in one step

  // Appends one 32-byte event; visible to events() at once, durable with the next commit.
  void append_event(uint64_t timestamp, EventType type, uint64_t id1, uint64_t id2, float value);
  void reserve_events(uint64_t more);  // room for `more` of them, in one step
  // Copies events [first, first + n) as stored bytes.
  std::vector<uint8_t> events(uint64_t first, uint64_t n) const;

  // Small state: one opaque blob, committed with the rest.
  const std::vector<uint8_t>& state() const;
  void set_state(std::vector<uint8_t> bytes);

  // Replaces all that this store holds, generation apart, by what `source` holds; a change like any other, to
  // be committed. Throws StorageError, with nothing changed, when the dims differ or a reader has this store
  // open.
  void copy_from(Store& source);
  // Makes a new memory in `directory` (missing or empty) of what is committed here. Throws StorageError when
  // something is there already; what was begun is removed then.
  void snapshot(const std::string& directory) const;

  // Makes all that was changed durable as one step: afterwards it survives a crash as a whole, before it none
  // of it does. Returns the generation. Throws StorageError when read-only, when called in a forked child and
  // on any failed write or sync; after a failed sync every later commit throws too.
  uint64_t commit();
  // Brings the main files up to date and empties the journal. Done by itself when the journal is large, on
  // close and on open after a crash; repeating it does no harm.
  void fold();
  // Folds and gives the journal's old bytes back, so that what was removed before the last commit is in no
  // file. Throws StorageError, with nothing changed, while a reader has this store open.
  void compact();
  // Drops what was not committed, folds, releases the lock. Views stay readable as long as someone holds the
  // store.
  void close();
  // Reader: takes over what a writer committed since. Returns whether anything changed.
  bool refresh();
  // Reads the files anew and checks every checksum, chain and count. Returns findings, none when sound.
  std::vector<std::string> verify();

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);

  NodeLayout layout_;
  Counters counters_;
  uint8_t* node_bytes_;
  uint8_t* edge_bytes_;
  bool watches_vectors_ = false;
  VectorChanges vector_changes_;
  std::unique_ptr<Impl> impl_;
};

// What lies at a path, found out without writing or locking anything.
enum class DirectoryKind { kMissing, kEmpty, kOurs, kVersion3, kForeign };
struct Inspection {
  DirectoryKind kind = DirectoryKind::kMissing;
  int64_t vector_dim = 0;  // ours only
  Counters counters;       // ours only: as of the last fold
  std::string reason;      // foreign only: what is not ours
};
Inspection inspect(const std::string& directory, FileSystem* file_system = nullptr);

}  // namespace aesg::storage
