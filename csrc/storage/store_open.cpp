// Opening: find out what lies there, make it when nothing does, check it, map it, lay the journal over it.
#include <algorithm>
#include <array>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {

// Address space is free, but for sanitizers, that keep books on it. What cannot be had is halved until it
// can.
#if defined(__has_feature)
#define AESG_CLANG_ASAN __has_feature(address_sanitizer)
#else
#define AESG_CLANG_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__) || AESG_CLANG_ASAN
constexpr int64_t kReserveBytes = int64_t{1} << 32;
#else
constexpr int64_t kReserveBytes = int64_t{1} << 40;
#endif

struct Part {
  const char* name;
  const char* magic;  // null: no header page
};
constexpr std::array<Part, 6> kParts = {{{names::kNodes, kNodesMagic},
                                         {names::kEdges, kEdgesMagic},
                                         {names::kState, kStateMagic},
                                         {names::kSums, kSumsMagic},
                                         {names::kJournal, kJournalMagic},
                                         {names::kLog, nullptr}}};

std::string join(const std::string& directory, const char* name) { return directory + "/" + name; }

void check_dim(int64_t dim) {
  if (dim < 1 || dim > kMaxDim) {
    throw StorageError("vector_dim: expected 1.." + std::to_string(kMaxDim) + ", got " + std::to_string(dim));
  }
}

// Without meta.npy: empty when all there is may be left of a creation that was cut short, else what is not.
std::string foreign_part(FileSystem& fs, const std::string& directory) {
  for (const Part& part : kParts) {
    PathKind kind = fs.kind(join(directory, part.name));
    if (kind == PathKind::kMissing) continue;
    if (kind != PathKind::kFile) return std::string(part.name) + " is not a file";
    auto file = fs.open(join(directory, part.name), OpenMode::kRead);
    if (!file) continue;
    int64_t size = file->size();
    std::array<char, 8> start{};
    file->read_until_end(start.data(), 8, 0);
    // A power cut can leave the first bytes old and the others new, or the other way round.
    bool ours = true;
    for (size_t i = 0; i < start.size(); ++i)
      ours = ours && (start[i] == 0 || (part.magic && start[i] == part.magic[i]));
    if (size > (part.magic ? kHeaderBytes : 0) || !ours) {
      return std::string(part.name) + " is there without meta.npy";
    }
  }
  return "";
}

// Makes an empty directory. meta.npy comes last and by rename: without it there is no memory yet.
void create(FileSystem& fs, const std::string& directory, int64_t dim) {
  try {
    for (const Part& part : kParts) {
      auto file = fs.open(join(directory, part.name), OpenMode::kCreate);
      file->resize(0);
      if (part.magic) {
        HeaderPage page = make_header_page(part.magic, dim, first_chain(dim));
        file->write_at(&page, sizeof page, 0);
      }
      file->sync();
    }
    auto meta = fs.open(join(directory, names::kNewMeta), OpenMode::kCreate);
    create_meta(*meta, dim);
    meta.reset();
    fs.rename(join(directory, names::kNewMeta), join(directory, names::kMeta));
    fs.sync_directory(directory);
  } catch (const StorageError&) {
    for (const Part& part : kParts) {
      try {
        fs.remove(join(directory, part.name));
      } catch (const StorageError&) {
        // What stays is taken for an interrupted creation by the next opening.
      }
    }
    try {
      fs.remove(join(directory, names::kNewMeta));
      fs.remove(join(directory, names::kMeta));
    } catch (const StorageError&) {
    }
    throw;
  }
}

}  // namespace

Inspection inspect(const std::string& directory, FileSystem* file_system) {
  FileSystem& fs = file_system ? *file_system : FileSystem::real();
  Inspection found;
  PathKind kind = fs.kind(directory);
  if (kind == PathKind::kMissing) return found;
  found.kind = DirectoryKind::kForeign;
  if (kind != PathKind::kDirectory) {
    found.reason = "it is not a directory";
    return found;
  }
  PathKind meta_path = fs.kind(join(directory, names::kMeta));
  auto meta =
      meta_path == PathKind::kFile ? fs.open(join(directory, names::kMeta), OpenMode::kRead) : nullptr;
  if (!meta) {
    found.reason = meta_path == PathKind::kMissing ? foreign_part(fs, directory) : "meta.npy is not a file";
    if (found.reason.empty()) found.kind = DirectoryKind::kEmpty;
    return found;
  }
  switch (meta_kind(*meta)) {
    case MetaKind::kVersion3:
      found.kind = DirectoryKind::kVersion3;
      break;
    case MetaKind::kForeign:
      found.reason = "meta.npy is not one of ours, or is damaged";
      break;
    case MetaKind::kOurs: {
      MetaSlot slot = read_meta(*meta);
      found.kind = DirectoryKind::kOurs;
      found.vector_dim = static_cast<int64_t>(slot.vector_dim);
      found.counters = counters_of(slot);
      break;
    }
  }
  return found;
}

std::shared_ptr<Store> Store::open(const OpenOptions& given) {
  OpenOptions options = given;
  while (options.directory.size() > 1 && options.directory.back() == '/') options.directory.pop_back();
  FileSystem& fs = options.file_system ? *options.file_system : FileSystem::real();
  const std::string& directory = options.directory;
  if (directory.empty()) throw StorageError("directory: expected a path, got an empty one");
  if (options.vector_dim != 0) check_dim(options.vector_dim);

  auto checked = [&] {
    Inspection found = inspect(directory, &fs);
    switch (found.kind) {
      case DirectoryKind::kVersion3:
        throw StorageError("'" + directory + "' is a memory of aesg 3.0.0; import it with: aesg import-v3 " +
                           directory + " NEW");
      case DirectoryKind::kForeign:
        throw StorageError("'" + directory + "' is not a memory of ours: " + found.reason);
      case DirectoryKind::kOurs:
        if (options.vector_dim != 0 && options.vector_dim != found.vector_dim) {
          throw StorageError("'" + directory + "' holds vectors of " + std::to_string(found.vector_dim) +
                             " dimensions, asked for were " + std::to_string(options.vector_dim));
        }
        break;
      default:
        if (options.access == Access::kRead) {
          throw StorageError("'" + directory + "' holds no memory to read");
        }
        if (options.vector_dim == 0) {
          throw StorageError("'" + directory + "' holds no memory yet: expected a vector_dim to make one");
        }
    }
    return found;
  };
  Inspection found = checked();
  const bool made_directory = found.kind == DirectoryKind::kMissing;
  if (made_directory) fs.make_directories(directory);
  int64_t dim = found.kind == DirectoryKind::kOurs ? found.vector_dim : options.vector_dim;
  auto impl = std::make_unique<Impl>(options, fs, dim);

  if (impl->writer()) {
    try {
      impl->locks.take_writer(fs, directory);
    } catch (const StorageError&) {
      if (made_directory) fs.remove_directory(directory);
      throw;
    }
    found = checked();  // between the first look and the lock another process may have been here
    if (found.kind != DirectoryKind::kOurs) {
      try {
        create(fs, directory, dim);
        size_t slash = directory.find_last_of('/');
        if (made_directory) {
          fs.sync_directory(slash == std::string::npos ? "." : slash == 0 ? "/" : directory.substr(0, slash));
        }
      } catch (const StorageError&) {
        impl->locks.release();
        try {
          fs.remove(join(directory, names::kLock));
          if (made_directory) fs.remove_directory(directory);
        } catch (const StorageError&) {
        }
        throw;
      }
    }
  } else {
    impl->locks.enter_gate(fs, directory);
  }
  impl->open_files();
  if (impl->writer() && !impl->journal.entries().empty() && !impl->fold()) impl->secure_journal();
  if (impl->writer()) impl->drop_leftovers();
  impl->map_files();
  return std::shared_ptr<Store>(new Store(std::move(impl)));
}

Store::Impl::Impl(const OpenOptions& given, FileSystem& file_system, int64_t dim)
    : options(given),
      fs(file_system),
      layout(dim),
      journal(layout),
      node_arena(kReserveBytes),
      edge_arena(kReserveBytes / 4),
      node_dirty(layout.group_bytes() / kLineBytes),
      edge_dirty(kEdgeGroupBytes / kLineBytes) {}

void Store::Impl::open_files() {
  OpenMode mode = writer() ? OpenMode::kWrite : OpenMode::kRead;
  auto must_open = [&](const char* name) {
    auto file = fs.open(path(name), mode);
    if (!file) throw StorageError("'" + path(name) + "' is missing");
    return file;
  };
  meta = must_open(names::kMeta);
  nodes = must_open(names::kNodes);
  edges = must_open(names::kEdges);
  log = must_open(names::kLog);
  state_file = must_open(names::kState);
  sums = must_open(names::kSums);
  journal_file = must_open(names::kJournal);

  slot = read_meta(*meta);
  if (slot.vector_dim != static_cast<uint64_t>(layout.dim())) {
    throw StorageError("'" + path(names::kMeta) + "' changed while it was opened");
  }
  journal.begin(*journal_file, slot);
  check_stamps();
  take_committed();

  // Before anything is mapped: what lies behind the end of a file cannot be read without a signal.
  auto holds = [&](File& file, int64_t bytes) {
    if (file.size() < bytes) {
      throw StorageError("'" + file.path() + "' is cut short: it has " + std::to_string(file.size()) +
                         " bytes, expected at least " + std::to_string(bytes));
    }
  };
  holds(*nodes, kHeaderBytes + node_file_groups * layout.group_bytes());
  holds(*edges, kHeaderBytes + edge_file_groups * kEdgeGroupBytes);
  // A fold that was cut short may have shortened these two already, to what the journal says.
  uint64_t least_events = slot.event_count, least_state = slot.state_bytes;
  for (const JournalEntry& entry : journal.entries()) {
    least_events = std::min(least_events, entry.header.kept_events);
    least_state = std::min(least_state, entry.header.state_bytes);
  }
  holds(*log, static_cast<int64_t>(least_events) * kEventBytes);
  holds(*state_file, kHeaderBytes + static_cast<int64_t>(least_state));
}

void Store::Impl::take_committed() {
  committed = journal.counters();
  kept_events = committed.event_count;
  node_file_groups = static_cast<int64_t>(journal.last().node_groups);
  edge_file_groups = static_cast<int64_t>(journal.last().edge_groups);
}

void Store::Impl::keep_events(uint64_t count) {
  if (count < log_events) {
    log_events = count;
    recent_events.clear();
  } else {
    recent_events.resize((count - log_events) * kEventBytes);
  }
}

void Store::Impl::check_stamps() {
  struct Stamp {
    File* file;
    uint64_t chain;
    bool sound;
  };
  std::vector<Stamp> stamps;
  auto check = [&](File& file, const char* magic) {
    bool sound = false;
    uint64_t chain = check_header_page(file, magic, layout.dim(), &sound);
    stamps.push_back({&file, chain, sound});
  };
  check(*nodes, kNodesMagic);
  check(*edges, kEdgesMagic);
  check(*state_file, kStateMagic);
  check(*sums, kSumsMagic);
  check(*journal_file, kJournalMagic);
  journal.scan();
  // A fold stamps the files before it moves meta on, so a crash in it leaves stamps of a later commit, or
  // torn.
  bool may_be_folding = !journal.entries().empty();
  for (const Stamp& stamp : stamps) {
    if (stamp.sound ? journal.knows_chain(stamp.chain) : may_be_folding) continue;
    throw StorageError("'" + stamp.file->path() + "' and '" + path(names::kMeta) +
                       "' are of different histories: one of them is damaged or comes from elsewhere");
  }
}

void Store::Impl::drop_leftovers() {
  auto cut = [](File& file, int64_t bytes) {
    if (file.size() > bytes) file.resize(bytes);
  };
  cut(*nodes, kHeaderBytes + node_file_groups * layout.group_bytes());
  cut(*edges, kHeaderBytes + edge_file_groups * kEdgeGroupBytes);
}

void Store::Impl::map_files() {
  int64_t node_bytes = kHeaderBytes + node_file_groups * layout.group_bytes();
  int64_t edge_bytes = kHeaderBytes + edge_file_groups * kEdgeGroupBytes;
  node_arena.map_file(*nodes, node_bytes);
  edge_arena.map_file(*edges, edge_bytes);
  node_arena.clear_from(node_bytes);
  edge_arena.clear_from(edge_bytes);
  log_events = slot.event_count;
  recent_events.clear();
  lay_over(0);
}

void Store::Impl::lay_over(size_t first_entry) {
  node_arena.grow(kHeaderBytes + all_node_groups(journal.last()) * layout.group_bytes());
  edge_arena.grow(kHeaderBytes + all_edge_groups(journal.last()) * kEdgeGroupBytes);
  for (size_t i = first_entry; i < journal.entries().size(); ++i) {
    const JournalEntry& entry = journal.entries()[i];
    Record record = journal.read(entry);
    record.for_each_range([&](const Range& range, const uint8_t* lines) {
      if (journal.superseded(entry, range)) return;
      size_t bytes = static_cast<size_t>(range.count * kLineBytes);
      int64_t offset = range.first * kLineBytes;
      switch (range.target) {
        case Target::kNodes:
          std::memcpy(node_arena.base() + kHeaderBytes + offset, lines, bytes);
          break;
        case Target::kEdges:
          std::memcpy(edge_arena.base() + kHeaderBytes + offset, lines, bytes);
          break;
        case Target::kState:
          break;  // state() replays it
      }
    });
    keep_events(entry.header.kept_events);
    recent_events.insert(recent_events.end(), record.events(),
                         record.events() + entry.header.new_events * kEventBytes);
  }
}

// After a crash records may be in the page cache and not on the disk: written anew, they are synced for sure
// before another commit relies on them.
void Store::Impl::secure_journal() {
  std::vector<uint8_t> buffer;
  for (const JournalEntry& entry : journal.entries()) {
    buffer.resize(entry.header.total_bytes);
    journal_file->read_at(buffer.data(), static_cast<int64_t>(buffer.size()), entry.offset);
    journal_file->write_at(buffer.data(), static_cast<int64_t>(buffer.size()), entry.offset);
  }
  journal_file->sync();
}

bool Store::Impl::refresh() {
  // Outside the gate for a moment, so that a writer who waits for it can fold.
  locks.leave_gate();
  locks.enter_gate(fs, options.directory);
  MetaSlot now = read_meta(*meta);
  const bool folded = now.epoch != slot.epoch;
  const size_t known = folded ? 0 : journal.entries().size();
  if (folded) {
    slot = now;
    journal.begin(*journal_file, slot);
  }
  if (!journal.scan() && !folded) return false;
  uint64_t before = committed.generation;
  int64_t node_groups = node_file_groups, edge_groups = edge_file_groups;
  take_committed();
  state_loaded = false;
  if (folded || node_groups != node_file_groups || edge_groups != edge_file_groups) {
    map_files();
  } else {
    lay_over(known);
  }
  return committed.generation != before;
}

}  // namespace aesg::storage
