// Every call of the seam fails, once and for ever, at every place of a session; disks fill up at every size.
#include <cerrno>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"
#include "csrc/tests/check.h"
#include "csrc/tests/helpers.h"
#include "csrc/tests/sim_fs.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

OpenOptions options_on(SimFileSystem& fs) {
  OpenOptions options;
  options.directory = "/m";
  options.vector_dim = 4;
  options.file_system = &fs;
  options.fold_bytes = 20000;  // so that a short session folds and writes in bulk
  options.bulk_bytes = 60000;
  return options;
}

// What a session knows for sure: the fingerprint after each generation it was told of, and of the one in
// flight.
struct Told {
  std::vector<uint64_t> prints;  // by generation, from 0
  bool in_flight = false;        // the last was not acknowledged
  int errors = 0;
};

constexpr uint64_t kSteps = 20;

// Opens, works, commits each step, closes. An error ends it, or, `stubborn`, is answered by trying again.
void session(SimFileSystem& fs, Told& told, bool stubborn) {
  auto tried = [&](auto call) {  // false: given up
    for (int attempt = 0; attempt < 3; ++attempt) {
      try {
        call();
        return true;
      } catch (const StorageError&) {
        ++told.errors;
        if (!stubborn) return false;
      }
    }
    return false;
  };
  std::shared_ptr<Store> store;
  if (!tried([&] { store = Store::open(options_on(fs)); })) return;
  uint64_t print = 0;
  if (!tried([&] { print = fingerprint(*store); })) return;
  told.prints.resize(store->counters().generation);
  told.prints.push_back(print);
  told.in_flight = false;
  for (uint64_t step = store->counters().generation; step < kSteps; ++step) {
    try {
      do_step(*store, step);
    } catch (const StorageError&) {  // reading the small state failed; half a step cannot be repeated
      ++told.errors;
      return;
    }
    if (!tried([&] { print = fingerprint(*store); })) return;
    told.prints.push_back(print);
    told.in_flight = true;
    if (!tried([&] { CHECK_EQ(store->commit(), step + 1); })) {
      CHECK_EQ(store->counters().generation, step);
      return;
    }
    told.in_flight = false;
  }
  store->close();
}

// The directory holds the last generation acknowledged, or the one in flight behind it, whole.
void check_directory(SimFileSystem& fs, const Told& told) {
  auto store = Store::open(options_on(fs));
  uint64_t generation = store->counters().generation;
  uint64_t newest = told.prints.empty() ? 0 : told.prints.size() - 1;
  CHECK(generation <= newest && generation + told.in_flight >= newest);
  if (!told.prints.empty()) CHECK_EQ(fingerprint(*store), told.prints[generation]);
  for (const std::string& finding : store->verify()) fail(__FILE__, __LINE__, finding);
  store->close();
}

int64_t calls_of_a_session() {
  SimFileSystem fs;
  Told told;
  session(fs, told, false);
  CHECK_EQ(told.errors, 0);
  CHECK_EQ(told.prints.size(), kSteps + 1);
  return fs.calls;
}

TEST(a_failing_call_is_an_error_and_loses_nothing) {
  const int64_t calls = calls_of_a_session();
  int64_t runs = 0, refused = 0;
  for (int error : {EIO, ENOSPC, EINTR}) {
    for (bool for_ever : {false, true}) {
      if (error == EINTR && !for_ever) continue;  // changes nothing: the test below
      for (int64_t k = 0; k < calls; k += kStride) {
        SimFileSystem fs;
        fs.fail_at = k;
        fs.fail_with = error;
        fs.fail_for_ever = for_ever;
        Told told;
        session(fs, told, false);
        refused += told.errors;
        fs.fail_at = -1;
        check_directory(fs, told);
        ++runs;
      }
    }
  }
  std::printf("     %lld runs, %lld of them with an error\n", static_cast<long long>(runs),
              static_cast<long long>(refused));
  CHECK(refused > runs / 2);
}

// Each call of the opening after a crash fails: the opening says so or does without, and the next one finds
// all.
TEST(a_failing_call_while_recovering_is_an_error_and_loses_nothing) {
  std::vector<std::unique_ptr<SimFileSystem>> crashed;
  std::vector<uint64_t> prints;
  {
    SimFileSystem fs;
    OpenOptions options = options_on(fs);
    options.fold_bytes = 64 << 20;  // all in the journal, so that the opening folds
    auto store = Store::open(options);
    for (uint64_t step = 0; step < 8; ++step) {
      do_step(*store, step);
      store->commit();
      prints.push_back(fingerprint(*store));
    }
    crashed.push_back(fs.after_clean_end());
    int64_t syncs = 0;
    fs.on_call = [&] {  // and in the middle of a fold
      if (fs.at.rfind("sync", 0) == 0 && syncs++ % 3 == 1) crashed.push_back(fs.after_clean_end());
    };
    store->fold();
    fs.on_call = nullptr;
  }
  int64_t runs = 0, refused = 0;
  for (const auto& crash : crashed) {
    int64_t calls = 0;
    {
      auto disk = crash->after_clean_end();
      Store::open(options_on(*disk));
      calls = disk->calls;
    }
    for (int error : {EIO, ENOSPC, EINTR, 0}) {
      for (bool for_ever : {false, true}) {
        for (int64_t k = 0; k < calls; k += kStride) {
          auto disk = crash->after_clean_end();
          disk->fail_at = k;
          disk->fail_with = error;
          disk->fail_for_ever = for_ever;
          try {
            auto store = Store::open(options_on(*disk));
            CHECK_EQ(store->counters().generation, prints.size());
            store->close();
          } catch (const StorageError&) {
            CHECK(error != 0 && (error != EINTR || for_ever));
            ++refused;
          }
          disk->fail_at = -1;
          auto store = Store::open(options_on(*disk));
          CHECK_EQ(store->counters().generation, prints.size());
          CHECK_EQ(fingerprint(*store), prints.back());
          ++runs;
        }
      }
    }
  }
  std::printf("     %lld runs, %lld of them with an error\n", static_cast<long long>(runs),
              static_cast<long long>(refused));
  CHECK(refused > runs / 4);
}

TEST(a_failing_call_can_be_tried_again) {
  const int64_t calls = calls_of_a_session();
  int64_t finished = 0;
  for (int64_t k = 0; k < calls; k += kStride) {
    SimFileSystem fs;
    fs.fail_at = k;
    fs.fail_with = EIO;
    Told told;
    session(fs, told, true);
    finished += told.prints.size() == kSteps + 1;
    fs.fail_at = -1;
    check_directory(fs, told);
    session(fs, told, false);  // and the next session ends what this one began
  }
  CHECK(finished > calls / kStride / 2);  // all but those that lost a sync
}

TEST(interrupted_and_short_transfers_change_nothing) {
  const int64_t calls = calls_of_a_session();
  SimFileSystem plain;
  Told expected;
  session(plain, expected, false);
  struct {
    int error;
    bool for_ever;
  } const cases[] = {{EINTR, false}, {0, false}, {0, true}};
  for (const auto& [error, for_ever] : cases) {
    for (int64_t k = 0; k < calls; k += kStride) {
      SimFileSystem fs;
      fs.fail_at = k;
      fs.fail_with = error;
      fs.fail_for_ever = for_ever;
      Told told;
      session(fs, told, false);
      CHECK_EQ(told.errors, 0);
      for (const auto& [path, inode] : plain.names()) {
        if (path != "/m/LOCK") CHECK(*fs.bytes(path) == inode->now);
      }
    }
  }
}

TEST(a_disk_full_at_every_page_keeps_the_last_commit) {
  SimFileSystem plain;
  Told expected;
  session(plain, expected, false);
  int64_t all = 0;
  for (const auto& [path, inode] : plain.names()) all += static_cast<int64_t>(inode->now.size());
  int64_t errors = 0;
  for (int64_t capacity = 0; capacity < all + (1 << 20); capacity += 4096 * kStride) {
    SimFileSystem fs;
    fs.capacity = capacity;
    Told told;
    session(fs, told, false);
    errors += told.errors;
    fs.capacity = INT64_MAX;
    check_directory(fs, told);
  }
  CHECK(errors > 10 / kStride);
}

// A store's first commit writes and syncs, the second has room in the journal and does both in one call.
TEST(after_a_failed_sync_the_store_refuses_and_says_so) {
  for (int failing = 0; failing < 2; ++failing) {
    SimFileSystem fs, probe;
    auto store = Store::open(options_on(fs)), other = Store::open(options_on(probe));
    for (int step = 0; step < failing; ++step) {
      do_step(*store, step), store->commit();
      do_step(*other, step), other->commit();
    }
    const uint64_t before = fingerprint(*store);
    do_step(*store, failing), do_step(*other, failing);
    // The sync is the last call of a commit.
    const int64_t calls = probe.calls;
    other->commit();
    fs.fail_at = fs.calls + (probe.calls - calls) - 1;
    fs.fail_with = EIO;
    const std::string told = failing ? "cannot write and sync" : "cannot sync";
    CHECK_THROWS(store->commit(), StorageError, told + " '/m/journal.aesg'");
    CHECK_THROWS(store->commit(), StorageError, "takes no commits any more after: " + told);
    CHECK_EQ(store->counters().generation, static_cast<uint64_t>(failing));
    store->close();
    store = Store::open(options_on(fs));
    CHECK_EQ(store->counters().generation, static_cast<uint64_t>(failing));
    CHECK_EQ(fingerprint(*store), before);
  }
}

}  // namespace
