// The process ends before any one call of a session, and again before any one call of the opening after it:
// what the calls before had done stays, the rest never happens.
#include <set>
#include <string>

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
  options.fold_bytes = 9000;
  options.bulk_bytes = 60000;
  return options;
}

TEST(killed_before_every_call_and_before_every_call_of_the_opening_after_it) {
  std::vector<uint64_t> prints;
  uint64_t acknowledged = 0;
  bool made = false;
  int64_t kills = 0, kills_while_opening = 0;
  std::set<std::string> points, recovery_points;

  auto expect_whole = [&](SimFileSystem& disk, const std::string& where) {
    try {
      auto store = Store::open(options_on(disk));
      const uint64_t generation = store->counters().generation;
      if (generation < acknowledged || (made && generation >= prints.size()) ||
          (made && fingerprint(*store) != prints[generation])) {
        fail(__FILE__, __LINE__, where + ": generation " + std::to_string(generation));
      }
    } catch (const StorageError& error) {
      fail(__FILE__, __LINE__, where + ": " + error.what());
    }
  };

  SimFileSystem fs;
  bool quiet = false;
  fs.on_call = [&] {
    if (quiet || fs.calls % kStride != 0) return;
    points.insert(fs.at);
    const std::string where = "killed before '" + fs.at + "'";
    auto disk = fs.after_clean_end();
    const int64_t turn = kills++ % (3 * kStride);  // each third call of an opening, another third every time
    SimFileSystem* opening = disk.get();
    disk->on_call = [&, opening] {
      if (opening->calls % (3 * kStride) != turn) return;
      ++kills_while_opening;
      recovery_points.insert(opening->at);
      expect_whole(*opening->after_clean_end(), where + ", then before '" + opening->at + "'");
    };
    expect_whole(*disk, where);
    disk->on_call = nullptr;
    expect_whole(*disk, where + ", opened twice");
  };
  auto store = Store::open(options_on(fs));
  made = true;
  auto print = [&] {
    quiet = true;
    prints.push_back(fingerprint(*store));
    quiet = false;
  };
  print();
  for (uint64_t step = 0; step < 20; ++step) {
    do_step(*store, step);
    print();
    store->commit();
    acknowledged = step + 1;
    if (step == 6) store->fold();
    if (step == 12) store->compact();
  }
  store->close();
  fs.on_call = nullptr;
  expect_whole(fs, "not killed");

  std::printf("     %lld kills at %zu places, %lld more at %zu places of the openings after them\n",
              static_cast<long long>(kills), points.size(), static_cast<long long>(kills_while_opening),
              recovery_points.size());
  if (kStride > 1) return;
  for (const char* must :
       {"write journal.aesg",      "sync journal.aesg",      "resize journal.aesg",  "write nodes.aesg",
        "sync nodes.aesg",         "resize nodes.aesg",      "map nodes.aesg",       "release nodes.aesg",
        "write edges.aesg",        "sync edges.aesg",        "write state.aesg",     "resize state.aesg",
        "write evolution.aesglog", "sync evolution.aesglog", "write checksums.aesg", "sync checksums.aesg",
        "write meta.npy",          "sync meta.npy",          "rename meta.npy.new",  "sync directory m"}) {
    if (!points.count(must)) fail(__FILE__, __LINE__, std::string("never there: ") + must);
  }
  for (const char* must : {"write nodes.aesg", "sync nodes.aesg", "write meta.npy", "sync meta.npy",
                           "write checksums.aesg", "write evolution.aesglog", "map nodes.aesg"}) {
    if (!recovery_points.count(must)) fail(__FILE__, __LINE__, std::string("never there: ") + must);
  }
}

}  // namespace
