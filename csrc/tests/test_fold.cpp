// What a fold may not change, what compact() promises, and a reader that meets a fold.
#include <algorithm>
#include <utility>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"
#include "csrc/tests/check.h"
#include "csrc/tests/helpers.h"
#include "csrc/tests/sim_fs.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

OpenOptions options_on(SimFileSystem& fs, Access access = Access::kWrite) {
  OpenOptions options;
  options.directory = "/m";
  options.vector_dim = access == Access::kWrite ? 4 : 0;
  options.access = access;
  options.file_system = &fs;
  return options;
}

TEST(memory_is_the_same_after_a_fold_marked_or_not) {
  SimFileSystem fs;
  auto store = Store::open(options_on(fs));
  for (uint64_t step = 0; step < 30; ++step) {
    do_step(*store, step);
    // A value that is neither marked nor committed, on a page that the fold writes.
    auto slot = static_cast<int64_t>(store->counters().node_count) - 1;
    store->commit();
    *store->at<float>(NodeColumn::kRelevance, slot) = 0.125F + static_cast<float>(step);
    const uint64_t before = fingerprint(*store);
    store->fold();
    CHECK_EQ(fingerprint(*store), before);
    store->mark(NodeColumn::kRelevance, slot);
  }
  store->commit();
  const uint64_t before = fingerprint(*store);
  store->close();
  CHECK_EQ(fingerprint(*Store::open(options_on(fs, Access::kRead))), before);
}

// Whether any file holds the eight bytes.
bool holds(SimFileSystem& fs, uint64_t word) {
  const auto* p = reinterpret_cast<const uint8_t*>(&word);
  for (const auto& [path, inode] : fs.names()) {
    if (std::search(inode->now.begin(), inode->now.end(), p, p + 8) != inode->now.end()) return true;
  }
  return false;
}

TEST(compact_leaves_nothing_of_what_was_removed) {
  constexpr uint64_t kSecret = 0x5EC2E7A11B0C4D3Fu;
  SimFileSystem fs;
  auto store = Store::open(options_on(fs));
  for (int i = 0; i < 5; ++i) add_concept(*store);
  *store->at<uint64_t>(NodeColumn::kCreatedAt, 2) = kSecret;
  store->commit();
  CHECK(holds(fs, kSecret));
  *store->at<uint64_t>(NodeColumn::kCreatedAt, 2) = 0;
  store->mark(NodeColumn::kCreatedAt, 2);
  store->commit();
  store->fold();
  CHECK(holds(fs, kSecret));  // in what the journal held before the fold
  store->compact();
  CHECK(!holds(fs, kSecret));
  store->compact();  // nothing to do
  add_concept(*store);
  store->commit();
  const uint64_t before = fingerprint(*store);
  store->close();
  CHECK_EQ(fingerprint(*Store::open(options_on(fs, Access::kRead))), before);
}

TEST(compact_beside_a_reader_says_so_and_changes_nothing) {
  SimFileSystem fs;
  auto store = Store::open(options_on(fs));
  do_step(*store, 0);
  store->commit();
  auto reader = Store::open(options_on(fs, Access::kRead));
  const auto before = fs.after_clean_end();
  CHECK_THROWS(store->compact(), StorageError, "cannot be compacted while a reader has it open");
  for (const auto& [path, inode] : before->names()) CHECK(*fs.bytes(path) == inode->now);
  CHECK_THROWS(reader->compact(), StorageError, "reading only");
  reader->close();
  store->compact();
}

TEST(a_reader_takes_over_what_was_folded_while_it_refreshed) {
  SimFileSystem fs;
  auto writer = Store::open(options_on(fs));
  for (uint64_t step = 0; step < 3; ++step) {
    do_step(*writer, step);
    writer->commit();
  }
  auto reader = Store::open(options_on(fs, Access::kRead));
  for (uint64_t step = 3; step < 40; ++step) {
    do_step(*writer, step);
    writer->commit();
    // The reader is outside the gate only for a moment inside refresh(): the fold happens there, and
    // sometimes one more commit behind it.
    bool met = false;
    fs.on_lock = [&] {
      if (std::exchange(met, true)) return;
      writer->fold();
      CHECK_EQ(fs.bytes("/m/meta.npy")->size(), 12288u);
      if (step % 3 != 0) return;
      *writer->at<float>(NodeColumn::kStability, 0) = static_cast<float>(step);
      writer->mark(NodeColumn::kStability, 0);
      writer->commit();
    };
    CHECK(reader->refresh());
    fs.on_lock = nullptr;  // it speaks of variables of this step
    CHECK(met);
    CHECK_EQ(reader->counters().generation, writer->counters().generation);
    CHECK_EQ(fingerprint(*reader), fingerprint(*writer));
    for (const std::string& finding : reader->verify()) fail(__FILE__, __LINE__, finding);
  }
}

}  // namespace
