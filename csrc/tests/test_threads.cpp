// A writer and readers at once, each with its own Store on one directory: no races (ThreadSanitizer), no torn
// snapshots.
#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"
#include "csrc/tests/check.h"
#include "csrc/tests/helpers.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

TEST(readers_beside_a_writer_see_whole_commits_only) {
  TempDirectory dir;
  OpenOptions options;
  options.directory = dir.path();
  options.vector_dim = 8;
  options.fold_bytes = 30000;
  options.bulk_bytes = 100000;
  std::mutex mutex;
  std::map<uint64_t, uint64_t> prints;  // by generation
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0}, seen{0};
  {
    auto store = Store::open(options);
    prints[0] = fingerprint(*store);
  }
  std::thread writer([&] {
    for (int session = 0; session < 4; ++session) {
      auto store = Store::open(options);
      for (int i = 0; i < 25; ++i) {
        do_step(*store, store->counters().generation * 5 + 1);
        uint64_t print = fingerprint(*store);
        {
          std::lock_guard<std::mutex> guard(mutex);
          prints[store->counters().generation + 1] = print;
        }
        store->commit();
      }
    }
    done = true;
  });
  auto read = [&](bool reopen) {
    std::shared_ptr<Store> store;
    while (!done) {
      try {
        if (!store || reopen) {
          store.reset();
          store = open_store(dir.path(), 0, Access::kRead);
        } else {
          store->refresh();
        }
        uint64_t print = fingerprint(*store);
        std::lock_guard<std::mutex> guard(mutex);
        auto known = prints.find(store->counters().generation);
        if (known == prints.end() || known->second != print) ++wrong;
        ++seen;
      } catch (const StorageError& error) {
        std::printf("reader: %s\n", error.what());
        ++wrong;
      }
    }
  };
  std::thread refreshing(read, false), reopening(read, true);
  writer.join();
  refreshing.join();
  reopening.join();
  CHECK_EQ(wrong.load(), 0);
  CHECK(seen > 10);
  auto store = open_store(dir.path());
  CHECK_EQ(store->counters().generation, 100u);
  for (const std::string& finding : store->verify()) fail(__FILE__, __LINE__, finding);
}

}  // namespace
