// The store as its callers see it: what is committed comes back, what is refused changes nothing.
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"
#include "csrc/tests/check.h"
#include "csrc/tests/helpers.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

TEST(creating_writes_the_documented_files) {
  TempDirectory dir;
  auto store = open_store(dir.file("deep/memory"), 16);
  for (const char* name : {"nodes.aesg", "edges.aesg", "meta.npy", "evolution.aesglog"}) {
    CHECK(std::filesystem::exists(dir.file("deep/memory/") + name));
  }
  CHECK_EQ(store->counters().node_count, 0u);
  CHECK_EQ(store->commit(), 0u);  // nothing to commit
}

TEST(committed_state_comes_back) {
  TempDirectory dir;
  uint64_t before = 0;
  {
    auto store = open_store(dir.path(), 16);
    for (uint64_t step = 0; step < 40; ++step) {
      do_step(*store, step);
      CHECK_EQ(store->commit(), step + 1);
    }
    before = fingerprint(*store);
  }
  auto store = open_store(dir.path());
  CHECK_EQ(store->layout().dim(), 16);
  CHECK_EQ(store->counters().generation, 40u);
  CHECK(fingerprint(*store) == before);
  for (const std::string& finding : store->verify()) fail(__FILE__, __LINE__, finding);
}

void expect_sound(Store& store) {
  for (const std::string& finding : store.verify()) fail(__FILE__, __LINE__, finding);
}

TEST(a_bulk_commit_survives_what_lies_in_the_journal_from_before) {
  TempDirectory dir;
  uint64_t before = 0;
  {
    OpenOptions options;
    options.directory = dir.path();
    options.vector_dim = 16;
    options.bulk_bytes = 1 << 16;
    auto store = Store::open(options);
    for (int i = 0; i < 10; ++i) add_concept(*store);
    store->commit();
    *store->at<float>(NodeColumn::kRelevance, 3) = 0.25F;  // the journal holds 1, the bulk write 0.25
    store->mark(NodeColumn::kRelevance, 3);
    for (int i = 0; i < 5000; ++i) add_concept(*store);
    store->commit();
    *store->at<float>(NodeColumn::kRelevance, 4) = 0.125F;
    store->mark(NodeColumn::kRelevance, 4);
    store->commit();
    before = fingerprint(*store);
    auto reader = open_store(dir.path(), 0, Access::kRead);
    CHECK(fingerprint(*reader) == before);
  }
  auto store = open_store(dir.path());
  CHECK(fingerprint(*store) == before);
  expect_sound(*store);
}

TEST(what_was_not_committed_is_gone_as_a_whole) {
  TempDirectory dir;
  uint64_t before = 0;
  {
    auto store = open_store(dir.path(), 8);
    for (uint64_t step = 0; step < 5; ++step) do_step(*store, step);
    store->commit();
    before = fingerprint(*store);
    for (uint64_t step = 5; step < 30; ++step) do_step(*store, step);
  }
  auto store = open_store(dir.path());
  CHECK(fingerprint(*store) == before);
  expect_sound(*store);
}

TEST(addresses_stay_across_growth_and_after_close) {
  TempDirectory dir;
  auto store = open_store(dir.path(), 8);
  add_concept(*store);
  const uint8_t* base = store->node_bytes();
  const float first = *store->at<float>(NodeColumn::kVector, 0);
  for (int i = 0; i < 20000; ++i) add_concept(*store);
  CHECK(store->node_bytes() == base);
  store->commit();
  store->close();
  CHECK_EQ(*reinterpret_cast<const float*>(base), first);
  CHECK_THROWS(store->commit(), StorageError, "was closed");
  CHECK_THROWS(store->allocate_slot(), StorageError, "was closed");
}

TEST(readers_see_committed_snapshots_and_refresh_when_asked) {
  TempDirectory dir;
  OpenOptions options;
  options.directory = dir.path();
  options.vector_dim = 16;
  options.fold_bytes = 20000;
  options.bulk_bytes = 100000;
  auto writer = Store::open(options);
  do_step(*writer, 0);
  writer->commit();
  auto reader = open_store(dir.path(), 0, Access::kRead);
  for (uint64_t step = 1; step < 60; ++step) {
    uint64_t before = fingerprint(*writer);
    CHECK_EQ(fingerprint(*reader), before);
    do_step(*writer, step);
    CHECK(!reader->refresh());
    CHECK_EQ(fingerprint(*reader), before);
    writer->commit();
    CHECK_EQ(fingerprint(*reader), before);  // until asked
    CHECK(reader->refresh());
    if (step % 20 == 0) {  // without a reader the journal folds
      reader->close();
      writer->fold();
      reader = open_store(dir.path(), 0, Access::kRead);
    }
  }
  CHECK_EQ(fingerprint(*reader), fingerprint(*writer));
  CHECK_THROWS(reader->commit(), StorageError, "reading only");
  CHECK_THROWS(reader->allocate_slot(), StorageError, "reading only");
  expect_sound(*reader);
  expect_sound(*writer);
}

TEST(a_second_writer_is_refused_with_the_pid) {
  TempDirectory dir;
  auto store = open_store(dir.path(), 8);
  CHECK_THROWS(open_store(dir.path()), StorageError, "by process " + std::to_string(::getpid()));
  pid_t child = ::fork();
  if (child == 0) {
    int code = 1;
    try {
      open_store(dir.path());
    } catch (const StorageError& error) {
      code = std::string(error.what()).find(std::to_string(::getppid())) != std::string::npos ? 0 : 2;
    }
    ::_exit(code);
  }
  int status = 0;
  CHECK_EQ(::waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  store->close();
  CHECK_EQ(open_store(dir.path())->layout().dim(), 8);
}

TEST(a_forked_child_neither_writes_nor_keeps_the_lock) {
  TempDirectory dir;
  auto store = open_store(dir.path(), 8);
  add_concept(*store);
  store->commit();
  add_concept(*store);
  int pipe_ends[2];
  CHECK_EQ(::pipe(pipe_ends), 0);
  pid_t child = ::fork();
  if (child == 0) {
    int code = 0;
    try {
      store->commit();
      code = 1;
    } catch (const StorageError& error) {
      if (!std::strstr(error.what(), "fork")) code = 2;
    }
    if (*store->at<uint64_t>(NodeColumn::kId, 0) != 1) code = 3;
    store.reset();  // neither folds nor unlocks
    char go;
    if (::read(pipe_ends[0], &go, 1) != 1) code = 4;
    ::_exit(code);
  }
  CHECK_THROWS(open_store(dir.path()), StorageError, "one writer");  // the child's close unlocked nothing
  CHECK_EQ(store->commit(), 2u);
  store.reset();
  CHECK_EQ(open_store(dir.path())->counters().node_count, 2u);  // while the child lives
  CHECK_EQ(::write(pipe_ends[1], "x", 1), 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK_EQ(status, 0);
}

TEST(closing_frees_the_directory_before_a_forked_child_has_run) {
  TempDirectory dir;
  auto store = open_store(dir.path(), 8);
  const auto child = static_cast<pid_t>(::syscall(SYS_fork));  // past the handlers, as one not yet scheduled
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  store->close();
  bool free = true;
  try {
    open_store(dir.path());
  } catch (const StorageError&) {
    free = false;
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(free);
}

TEST(a_creation_that_was_torn_inside_the_first_bytes_of_a_file_is_made_again) {
  for (int new_bytes = 0; new_bytes <= 8; ++new_bytes) {
    for (bool front : {true, false}) {  // which side of the tear is new
      TempDirectory dir;
      open_store(dir.file("m"), 8)->close();
      std::filesystem::remove(dir.file("m/meta.npy"));
      std::vector<uint8_t> page = read_file(dir.file("m/nodes.aesg"));
      page.resize(4096);
      for (int i = 0; i < 8; ++i)
        if ((i < new_bytes) != front) page[static_cast<size_t>(i)] = 0;
      write_file(dir.file("m/nodes.aesg"), page);
      CHECK_EQ(open_store(dir.file("m"), 8)->counters().generation, 0u);
    }
  }
}

TEST(what_is_not_ours_is_refused_and_left_alone) {
  TempDirectory dir;
  open_store(dir.file("m"), 8)->close();
  CHECK_THROWS(open_store(dir.file("m"), 9), StorageError, "8 dimensions, asked for were 9");
  CHECK_THROWS(open_store(dir.file("none")), StorageError, "expected a vector_dim");
  CHECK_THROWS(open_store(dir.file("none"), 4, Access::kRead), StorageError, "no memory to read");
  CHECK(!std::filesystem::exists(dir.file("none")));
  CHECK_THROWS(open_store(dir.file("m"), 8193), StorageError, "1..8192");

  std::filesystem::create_directory(dir.file("foreign"));
  write_file(dir.file("foreign/nodes.aesg"), {'h', 'e', 'l', 'l', 'o'});
  CHECK_THROWS(open_store(dir.file("foreign"), 8), StorageError, "nodes.aesg is there without meta.npy");
  write_file(dir.file("plain"), {1, 2, 3});
  CHECK_THROWS(open_store(dir.file("plain"), 8), StorageError, "not a directory");
  CHECK_THROWS(open_store(dir.file("plain/below"), 8), StorageError, "");
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.file("foreign"))) files += entry.exists();
  CHECK_EQ(files, 1u);
}

TEST(an_interrupted_creation_is_made_anew) {
  TempDirectory dir;
  open_store(dir.file("m"), 8)->close();
  std::filesystem::remove(dir.file("m/meta.npy"));
  std::filesystem::resize_file(dir.file("m/edges.aesg"), 0);
  std::filesystem::resize_file(dir.file("m/nodes.aesg"), 100);
  auto store = open_store(dir.file("m"), 16);
  CHECK_EQ(store->layout().dim(), 16);
  add_concept(*store);
  store->commit();
  expect_sound(*store);
}

TEST(free_lists_hand_slots_and_blocks_out_again) {
  TempDirectory dir;
  auto store = open_store(dir.path(), 8);
  for (int i = 0; i < 3; ++i) add_concept(*store);
  for (int64_t slot : {0, 2, 1}) {
    --store->counters().active_count;
    store->free_slot(slot);
  }
  int32_t a = store->allocate_block(), b = store->allocate_block();
  store->free_block(a);
  store->free_block(b);
  store->commit();
  expect_sound(*store);
  CHECK_EQ(add_concept(*store), 1);
  CHECK_EQ(add_concept(*store), 2);
  CHECK_EQ(add_concept(*store), 0);
  CHECK_EQ(add_concept(*store), 3);
  CHECK_EQ(*store->at<int32_t>(NodeColumn::kFirstBlock, 0), -1);
  CHECK_EQ(store->allocate_block(), b);
  CHECK_EQ(store->allocate_block(), a);
  CHECK_EQ(store->allocate_block(), 2);
  CHECK_THROWS(store->free_slot(99), ArgumentError, "expected a slot below 4");
}

TEST(the_same_calls_write_the_same_bytes) {
  TempDirectory dir;
  for (const char* name : {"a", "b"}) {
    auto store = open_store(dir.file(name), 16);
    for (uint64_t step = 0; step < 30; ++step) {
      do_step(*store, step);
      store->commit();
      if (step == 10) store->fold();
    }
  }
  for (const auto& entry : std::filesystem::directory_iterator(dir.file("a"))) {
    std::string name = entry.path().filename();
    CHECK(read_file(dir.file("a/" + name)) == read_file(dir.file("b/" + name)));
  }
}

TEST(a_snapshot_opens_on_its_own_and_restores) {
  TempDirectory dir;
  auto store = open_store(dir.file("m"), 16);
  for (uint64_t step = 0; step < 20; ++step) do_step(*store, step);
  store->commit();
  const uint64_t before = fingerprint(*store);
  do_step(*store, 20);  // not committed: not in the snapshot
  store->snapshot(dir.file("copy"));
  CHECK_THROWS(store->snapshot(dir.file("copy")), StorageError, "already holds something");
  auto copy = open_store(dir.file("copy"), 0, Access::kRead);
  CHECK_EQ(fingerprint(*copy), before);
  expect_sound(*copy);
  store->commit();
  for (uint64_t step = 21; step < 50; ++step) {
    do_step(*store, step);
    store->commit();
  }
  uint64_t generation = store->counters().generation;
  store->copy_from(*copy);
  CHECK_EQ(store->commit(), generation + 1);
  CHECK_EQ(fingerprint(*store), before);
  expect_sound(*store);
  auto reader = open_store(dir.file("m"), 0, Access::kRead);
  CHECK_EQ(fingerprint(*reader), before);
  reader.reset();
  for (uint64_t step = 20; step < 40; ++step) {
    do_step(*store, step);
    store->commit();
  }
  const uint64_t later = fingerprint(*store);
  store->close();
  store = open_store(dir.file("m"));
  CHECK_EQ(fingerprint(*store), later);
  expect_sound(*store);
  auto other = open_store(dir.file("other"), 8);
  CHECK_THROWS(store->copy_from(*other), StorageError, "dimensions");
}

TEST(small_commits_write_into_space_that_is_there) {
  TempDirectory dir;
  auto store = open_store(dir.path(), 4);
  std::set<size_t> lengths;
  for (int i = 0; i < 100; ++i) {
    add_concept(*store);
    store->commit();
    lengths.insert(read_file(dir.file("journal.aesg")).size());
  }
  CHECK_EQ(lengths.size(), 1u);
  store->close();
  CHECK_EQ(read_file(dir.file("journal.aesg")).size(), 4096u);
}

}  // namespace
