// The store as its callers see it: what is committed comes back, what is refused changes nothing.
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

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

}  // namespace
