// Fuzzing of every parser of the store: a directory is changed as the input says, its checksums are made to
// fit again when the input says so, and it is read, verified, written to and folded. Errors are typed or it
// crashes.
//
// With libFuzzer (cmake -DAESG_FUZZ=ON, clang): aesg_fuzz_store [libFuzzer's options].
// Without: aesg_fuzz [runs] [seed], a loop of random inputs; prints counts.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "csrc/base/crc32c.h"
#include "csrc/base/error.h"
#include "csrc/storage/format.h"
#include "csrc/storage/store.h"
#include "csrc/tests/helpers.h"
#include "csrc/tests/sim_fs.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

constexpr const char* kFiles[] = {"meta.npy",   "journal.aesg",      "nodes.aesg",    "edges.aesg",
                                  "state.aesg", "evolution.aesglog", "checksums.aesg"};

struct Counts {
  int64_t runs = 0, opened = 0, sound = 0, written = 0;
} counts;

OpenOptions options_on(SimFileSystem& fs, Access access) {
  OpenOptions options;
  options.directory = "/m";
  options.vector_dim = access == Access::kWrite ? 4 : 0;
  options.access = access;
  options.file_system = &fs;
  return options;
}

// Three commits folded, four in the journal.
const SimFileSystem& base() {
  static const std::unique_ptr<SimFileSystem> made = [] {
    SimFileSystem fs;
    auto store = Store::open(options_on(fs, Access::kWrite));
    for (uint64_t step = 0; step < 7; ++step) {
      do_step(*store, step);
      store->commit();
      if (step == 2) store->fold();
    }
    return fs.after_clean_end();
  }();
  return *made;
}

template <typename T>
void reseal(std::vector<uint8_t>& bytes, size_t at) {
  if (at + sizeof(T) > bytes.size()) return;
  T t;
  std::memcpy(&t, bytes.data() + at, sizeof t);
  seal(t);
  std::memcpy(bytes.data() + at, &t, sizeof t);
}

void reseal_journal(std::vector<uint8_t>& bytes) {
  uint64_t chain = 0;
  for (size_t at = kHeaderBytes, record = 0; at + sizeof(RecordHeader) <= bytes.size(); ++record) {
    RecordHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    if (!has_magic(header.magic, kRecordMagic) || header.total_bytes < sizeof header ||
        header.total_bytes > bytes.size() - at) {
      return;
    }
    if (record > 0) header.chain = chain;
    header.payload_crc = crc32c(0, bytes.data() + at + sizeof header, header.total_bytes - sizeof header);
    seal(header);
    std::memcpy(bytes.data() + at, &header, sizeof header);
    chain = next_chain(header);
    at += header.total_bytes;
  }
}

void reseal_all(SimFileSystem& fs) {
  for (const char* name : {"nodes.aesg", "edges.aesg", "state.aesg", "journal.aesg", "checksums.aesg"}) {
    std::vector<uint8_t>& bytes = *fs.bytes(std::string("/m/") + name);
    reseal<FileHeader>(bytes, 0);
    reseal<FileStamp>(bytes, sizeof(FileHeader));
  }
  for (size_t at : {4096, 8192}) reseal<MetaSlot>(*fs.bytes("/m/meta.npy"), at);
  reseal_journal(*fs.bytes("/m/journal.aesg"));
}

// Input: a byte whose bit 0 says "make the checksums fit", then instructions of 12 bytes: file, operation,
// u16 place (in lines or bytes), u64 value.
void change(SimFileSystem& fs, const uint8_t* data, size_t size) {
  for (size_t at = 1; at + 12 <= size; at += 12) {
    std::vector<uint8_t>& bytes = *fs.bytes(std::string("/m/") + kFiles[data[at] % 7]);
    const uint8_t how = data[at + 1];
    uint16_t place;
    uint64_t value;
    std::memcpy(&place, data + at + 2, 2);
    std::memcpy(&value, data + at + 4, 8);
    // Words of the structures: behind the header page (meta's slots, records), or of the header page itself.
    size_t offset = (how & 1 ? 4096u : 0u) + (how & 2 ? place * 8u : place);
    if (how & 4) offset = offset % 512 + (how & 1 ? 4096u : 0u);
    const size_t length = how & 8 ? 8 : how & 16 ? 4 : 1;
    if (how >= 240) {
      bytes.resize(std::min<size_t>(value % (2 * bytes.size() + 4096), 1 << 20));
    } else if (offset + length <= bytes.size()) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data() + offset, length);
      word = how & 32 ? word + static_cast<uint64_t>(static_cast<int64_t>(value << 60) >> 60) : value;
      std::memcpy(bytes.data() + offset, &word, length);
    }
  }
  if (size > 0 && data[0] & 1) reseal_all(fs);
}

void use(SimFileSystem& fs) {
  ++counts.runs;
  try {
    auto reader = Store::open(options_on(fs, Access::kRead));
    ++counts.opened;
    fingerprint(*reader);
    counts.sound += reader->verify().empty();
  } catch (const StorageError&) {
  }
  try {
    auto writer = Store::open(options_on(fs, Access::kWrite));
    add_concept(*writer);
    writer->allocate_block();
    writer->commit();
    writer->fold();
    writer->close();
    ++counts.written;
  } catch (const StorageError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto fs = base().after_clean_end();
  change(*fs, data, std::min<size_t>(size, 1 + 12 * 32));
  use(*fs);
  return 0;
}

#if !defined(AESG_LIBFUZZER)
int main(int argc, char** argv) {
  const int64_t runs = argc > 1 ? std::atoll(argv[1]) : 3000;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const uint64_t odd[] = {
      0, 1, 2, 1023, 1024, 1025, 1u << 31, ~uint64_t{0}, uint64_t{1} << 62, uint64_t{1} << 40};
  std::vector<uint8_t> input;
  for (int64_t run = 0; run < runs; ++run) {
    input.assign(1 + 12 * (1 + random() % 3), 0);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    input[0] = random() % 8 != 0;
    for (size_t at = 1; at < input.size(); at += 12) {
      if (random() % 2) input[at] = static_cast<uint8_t>(random() % 2);  // meta and journal hold most of it
      if (random() % 2) input[at + 1] |= 4;
      if (random() % 2) std::memcpy(input.data() + at + 4, &odd[random() % 10], 8);
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf(
      "%lld changed directories: %lld could be opened, %lld of them were sound, %lld could be written to\n",
      static_cast<long long>(counts.runs), static_cast<long long>(counts.opened),
      static_cast<long long>(counts.sound), static_cast<long long>(counts.written));
  return counts.opened > 0 && counts.opened < counts.runs ? 0 : 1;
}
#endif
