// What the store's tests share: a directory of their own, and a small made-up history of commits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "csrc/storage/store.h"

namespace aesg::testing {

// Made under $TMPDIR or /tmp, removed with all it holds.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

using storage::Store;

std::shared_ptr<Store> open_store(const std::string& directory, int64_t dim = 0,
                                  storage::Access access = storage::Access::kWrite);

// One concept whose every column is told by its id; its slot.
int64_t add_concept(Store& store);
// An edge from slot to slot in a block of its own at the head of the chain.
void add_edge(Store& store, int64_t source, int32_t target, float weight);
// A step of an endless made-up history: births, changed relevances, edges, deaths and freed slots, events,
// small state; what it does depends on `step` and on the store alone. Leaves the commit to the caller.
void do_step(Store& store, uint64_t step);

// Hash of everything a reader can see: counters (generation apart), columns of all slots, blocks, events,
// state.
uint64_t fingerprint(Store& store);

std::vector<uint8_t> read_file(const std::string& path);
void write_file(const std::string& path, const std::vector<uint8_t>& bytes);
void copy_directory(const std::string& from, const std::string& to);

}  // namespace aesg::testing
