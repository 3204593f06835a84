// A file system in memory behind the I/O seam: it fails calls on demand, runs out of space, and can tell what
// a disk might hold after the power went.
//
// Model of the disk: a file's bytes and length are durable once its sync returned; before that every 512-byte
// sector written since may be old, new, or torn at any byte, and the length old or new. Names (creation,
// rename, removal) are durable once the directory was synced; before that any prefix of the changes may have
// happened.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "csrc/storage/file.h"

namespace aesg::testing {

class SimFileSystem final : public storage::FileSystem {
 public:
  struct Inode {
    std::vector<uint8_t> now;      // what reads see
    std::vector<uint8_t> durable;  // what the last sync left
    std::set<int64_t> touched;     // sectors written since
    int exclusive = 0;
    int shared = 0;
  };
  using Names = std::map<std::string, std::shared_ptr<Inode>>;

  // Failing: call number `fail_at` (counted from 0 over the calls below, or over writing calls only) answers
  // `fail_with`, once or from then on. 0 for fail_with: a short transfer instead.
  int64_t fail_at = -1;
  int fail_with = 0;
  bool fail_for_ever = false;
  int64_t calls = 0;               // raw calls that can fail, so far
  int64_t capacity = INT64_MAX;    // bytes of all files together
  std::set<std::string> unsynced;  // files whose sync lies (base names)
  std::string late, until;         // the sync of `late` happens only behind that of `until` (base names)
  std::function<void()> on_call;   // before each raw call that can fail
  std::string at;                  // which one that is: "write nodes.aesg"
  std::function<void()> on_lock;   // before each attempt to lock

  // Copies share nothing with the original.
  std::unique_ptr<SimFileSystem> after_clean_end() const;  // what reads see, all durable
  std::unique_ptr<SimFileSystem> after_power_cut(std::mt19937_64& random) const;

  std::vector<uint8_t>* bytes(const std::string& path);  // null when missing
  const Names& names() const { return names_; }

 protected:
  std::unique_ptr<storage::File> raw_open(const std::string& path, storage::OpenMode mode,
                                          int* error) override;
  int raw_kind(const std::string& path, storage::PathKind* kind) override;
  int raw_make_directory(const std::string& path) override;
  int raw_rename(const std::string& from, const std::string& to) override;
  int raw_remove(const std::string& path) override;
  int raw_remove_directory(const std::string& path) override;
  int raw_sync_directory(const std::string& path) override;

 private:
  friend class SimFile;
  // 0 to go on, 1 to transfer less than asked, or a negative errno.
  int next_call(const char* what, const std::string& path);
  int64_t used() const;
  void rename_now(const std::function<void(Names&)>& change);

  Names names_;
  std::set<std::string> directories_;
  Names durable_names_;
  std::shared_ptr<Inode> waiting_;  // whose late sync is still to come
  std::vector<std::function<void(Names&)>> pending_names_;
};

}  // namespace aesg::testing
