// Files that changed, were cut, swapped or forged: found, never believed, never a crash.
#include <cstring>
#include <random>

#include "csrc/base/crc32c.h"
#include "csrc/base/error.h"
#include "csrc/storage/format.h"
#include "csrc/storage/store.h"
#include "csrc/tests/check.h"
#include "csrc/tests/helpers.h"
#include "csrc/tests/sim_fs.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

constexpr const char* kFiles[] = {"nodes.aesg", "edges.aesg",   "meta.npy",      "evolution.aesglog",
                                  "state.aesg", "journal.aesg", "checksums.aesg"};

OpenOptions options_on(SimFileSystem& fs, Access access) {
  OpenOptions options;
  options.directory = "/m";
  options.vector_dim = access == Access::kWrite ? 4 : 0;
  options.access = access;
  options.file_system = &fs;
  return options;
}

// `folded` steps that are in the main files, then `open` ones that only the journal holds.
std::unique_ptr<SimFileSystem> made(uint64_t folded, uint64_t open, std::vector<uint64_t>* prints = nullptr,
                                    uint64_t first = 0) {
  SimFileSystem fs;
  auto store = Store::open(options_on(fs, Access::kWrite));
  for (uint64_t step = 0; step < folded + open; ++step) {
    do_step(*store, first + step);
    store->commit();
    if (step + 1 == folded) store->fold();
    if (prints) prints->push_back(fingerprint(*store));
  }
  return fs.after_clean_end();  // while the store is open: its close would fold
}

// Whether opening, reading all and verifying finds anything.
bool found(SimFileSystem& fs, uint64_t* print = nullptr, uint64_t* generation = nullptr) {
  try {
    auto store = Store::open(options_on(fs, Access::kRead));
    uint64_t p = fingerprint(*store);
    if (print) *print = p;
    if (generation) *generation = store->counters().generation;
    return !store->verify().empty();
  } catch (const StorageError&) {
    return true;
  }
}

TEST(every_changed_byte_of_a_closed_directory_is_found) {
  auto fs = made(8, 0);
  CHECK(!found(*fs));
  size_t state_bytes = Store::open(options_on(*fs, Access::kRead))->state().size();
  CHECK(state_bytes > 0);
  for (const char* name : kFiles) {
    std::vector<uint8_t>& bytes = *fs->bytes(std::string("/m/") + name);
    // The journal is empty and nothing behind its header means anything. In the table of checksums only the
    // entries of pages that exist do; headers and meta are looked at byte by byte, the rest at a prime
    // distance.
    // The small state is followed by zeros up to a whole line, which nobody reads.
    size_t end = std::strcmp(name, "journal.aesg") == 0 ? 4096
                 : std::strcmp(name, "state.aesg") == 0 ? 4096 + state_bytes
                                                        : bytes.size();
    bool meta = std::strcmp(name, "meta.npy") == 0;
    for (size_t i = 0; i < end;) {
      if (std::strcmp(name, "checksums.aesg") == 0 && i >= 4096 + 4) break;
      const bool every_bit = i < 128 || (meta && i % 4096 < 160) || (every() && (i < 4096 || meta));
      for (int bit = 0; bit < (every_bit ? 8 : 1); ++bit) {
        uint8_t mask = static_cast<uint8_t>(1 << (bit ? bit : static_cast<int>(i) % 8));
        if (bit && mask == 1 << (i % 8)) mask = 1;
        bytes[i] ^= mask;
        if (!found(*fs)) fail(__FILE__, __LINE__, std::string(name) + ": byte " + std::to_string(i));
        bytes[i] ^= mask;
      }
      bool header = i < 4096 || meta;
      i += every()  ? 1
           : header ? (i % 4096 < 160 ? 1 : 13) * static_cast<size_t>(kStride)
                    : 997 * static_cast<size_t>(kStride);
    }
  }
}

TEST(every_changed_byte_of_a_journal_is_found_or_its_last_record_was_never_written) {
  std::vector<uint64_t> prints;
  auto fs = made(3, 5, &prints);
  std::vector<uint8_t>& bytes = *fs->bytes("/m/journal.aesg");
  size_t last = 4096, end = 4096;
  for (RecordHeader header; end + sizeof header <= bytes.size();) {
    std::memcpy(&header, bytes.data() + end, sizeof header);
    if (!has_magic(header.magic, kRecordMagic) || header.epoch != 2) break;
    last = end;
    end += header.total_bytes;
  }
  CHECK(last > 4096);
  for (size_t i = 4096; i < end; i += static_cast<size_t>(kStride)) {
    bytes[i] ^= 0x10;
    uint64_t print = 0, generation = 0;
    bool noticed = found(*fs, &print, &generation);
    if (i < last && !noticed) fail(__FILE__, __LINE__, "byte " + std::to_string(i));
    if (i >= last && !noticed) CHECK(generation == 7 && print == prints[6]);
    bytes[i] ^= 0x10;
  }
}

TEST(every_length_of_every_file) {
  for (uint64_t open : {0, 4}) {
    std::vector<uint64_t> prints;
    auto fs = made(4, open, &prints);
    for (const char* name : kFiles) {
      std::vector<uint8_t>& bytes = *fs->bytes(std::string("/m/") + name);
      const std::vector<uint8_t> whole = bytes;
      for (size_t length = 0; length < whole.size();) {
        bytes.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        uint64_t print = 0, generation = 0;
        if (!found(*fs, &print, &generation)) {
          CHECK(generation >= 4 && print == prints[generation - 1]);  // an older commit, whole
          if (generation != 4 + open) CHECK(std::strcmp(name, "journal.aesg") == 0);
        }
        length += every() ? 1
                          : (length < 300     ? 1
                             : length < 20000 ? 61
                                              : 4999) *
                                static_cast<size_t>(kStride);
      }
      bytes = whole;
    }
  }
}

TEST(files_of_two_directories_do_not_mix) {
  for (uint64_t open : {0, 3}) {
    auto a = made(5, open), b = made(6, open, nullptr, 100);
    for (const char* name : kFiles) {
      std::string path = std::string("/m/") + name;
      std::vector<uint8_t> own = *a->bytes(path);
      *a->bytes(path) = *b->bytes(path);
      bool same = own.size() <= b->bytes(path)->size() &&
                  std::equal(own.begin(), own.end(), b->bytes(path)->begin());  // a log may begin alike
      if (found(*a) == same) fail(__FILE__, __LINE__, path);
      *a->bytes(path) = own;
    }
    CHECK(!found(*a));
  }
}

TEST(files_of_two_times_do_not_mix) {
  auto early = made(5, 0), late = made(9, 0);
  for (const char* name : kFiles) {
    std::string path = std::string("/m/") + name;
    std::vector<uint8_t> own = *late->bytes(path);
    if (own == *early->bytes(path)) continue;
    *late->bytes(path) = *early->bytes(path);
    if (!found(*late)) fail(__FILE__, __LINE__, path);
    *late->bytes(path) = own;
  }
}

TEST(newer_versions_are_refused) {
  auto fs = made(2, 0);
  for (const char* name : {"nodes.aesg", "edges.aesg", "state.aesg", "journal.aesg", "checksums.aesg"}) {
    std::vector<uint8_t>& bytes = *fs->bytes(std::string("/m/") + name);
    const std::vector<uint8_t> own = bytes;
    FileHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    header.version = 2;
    seal(header);
    std::memcpy(bytes.data(), &header, sizeof header);
    CHECK_THROWS(Store::open(options_on(*fs, Access::kRead)), StorageError, "version 2, newer than the 1");
    bytes = own;
  }
  std::vector<uint8_t>& meta = *fs->bytes("/m/meta.npy");
  for (size_t at : {4096, 8192}) {
    MetaSlot slot;
    std::memcpy(&slot, meta.data() + at, sizeof slot);
    slot.version = 2;
    seal(slot);
    std::memcpy(meta.data() + at, &slot, sizeof slot);
  }
  CHECK_THROWS(Store::open(options_on(*fs, Access::kRead)), StorageError, "version 2, newer than the 1");
}

// What a reader and a writer do with a directory, whatever it says.
void use(SimFileSystem& fs) {
  try {
    auto reader = Store::open(options_on(fs, Access::kRead));
    fingerprint(*reader);
    reader->verify();
  } catch (const StorageError&) {
  }
  try {
    auto writer = Store::open(options_on(fs, Access::kWrite));
    add_concept(*writer);
    writer->allocate_block();
    writer->commit();
    writer->fold();
    writer->close();
  } catch (const StorageError&) {
  }
}

TEST(forged_meta_with_sound_checksums_never_crashes) {
  std::mt19937_64 random(7);
  auto fs = made(4, 2);
  const uint64_t odd[] = {
      0, 1, 1023, 1024, 1025, 1u << 31, ~uint64_t{0}, uint64_t{1} << 62, uint64_t{1} << 40};
  for (int i = 0; i < 3000 / kStride; ++i) {
    auto forged = fs->after_clean_end();
    std::vector<uint8_t>& meta = *forged->bytes("/m/meta.npy");
    for (size_t at : {4096, 8192}) {
      MetaSlot slot;
      std::memcpy(&slot, meta.data() + at, sizeof slot);
      auto* words = reinterpret_cast<uint64_t*>(&slot);
      for (uint64_t n = 1 + random() % 2; n > 0; --n) {
        words[2 + random() % 18] =
            random() % 2 ? odd[random() % 9] : words[2 + random() % 18] + random() % 5 - 2;
      }
      seal(slot);
      std::memcpy(meta.data() + at, &slot, sizeof slot);
    }
    use(*forged);
  }
}

TEST(forged_journals_with_sound_checksums_never_crash) {
  std::mt19937_64 random(8);
  auto fs = made(3, 4);
  int64_t opened = 0;
  for (int i = 0; i < 4000 / kStride; ++i) {
    auto forged = fs->after_clean_end();
    std::vector<uint8_t>& bytes = *forged->bytes("/m/journal.aesg");
    uint64_t chain = 0;
    size_t victim = random() % 4, at = 4096;
    for (size_t record = 0;; ++record) {
      RecordHeader header;
      if (at + sizeof header > bytes.size()) break;
      std::memcpy(&header, bytes.data() + at, sizeof header);
      if (!has_magic(header.magic, kRecordMagic) || at + header.total_bytes > bytes.size()) break;
      const size_t total = header.total_bytes;
      if (record > victim) header.chain = chain;
      if (record == victim) {
        if (random() % 3) {
          auto* words = reinterpret_cast<uint64_t*>(&header);
          size_t word = 5 + random() % 15;
          words[word] = random() % 3 ? words[word] + random() % 9 - 4 : random() >> (random() % 64);
        } else {
          size_t where = at + sizeof header + random() % std::min<size_t>(total - sizeof header, 256);
          bytes[where] ^= static_cast<uint8_t>(1 << random() % 8);
        }
        header.payload_crc = crc32c(0, bytes.data() + at + sizeof header, total - sizeof header);
      }
      seal(header);
      std::memcpy(bytes.data() + at, &header, sizeof header);
      chain = next_chain(header);
      at += total;
    }
    uint64_t generation = 0;
    opened += !found(*forged, nullptr, &generation);
    use(*forged);
  }
  CHECK(opened > 0);
}

TEST(random_bytes_are_no_directory) {
  std::mt19937_64 random(9);
  auto fs = made(3, 3);
  for (int i = 0; i < 1500 / kStride; ++i) {
    auto forged = fs->after_clean_end();
    std::vector<uint8_t>& bytes = *forged->bytes(std::string("/m/") + kFiles[random() % 7]);
    for (uint64_t n = 1 + random() % 20; n > 0 && !bytes.empty(); --n) {
      bytes[random() % std::min<size_t>(bytes.size(), 16384)] = static_cast<uint8_t>(random());
    }
    if (random() % 8 == 0) bytes.resize(random() % (bytes.size() + 5000));
    use(*forged);
  }
}

}  // namespace
