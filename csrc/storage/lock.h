// Who may write, and what a forked child may not.
#pragma once

#include <memory>
#include <string>

#include "csrc/storage/file.h"

namespace aesg::storage {

// The two locks of a store. Both belong to open files, so a child made by fork() would share them and keep
// them alive: in every child they are closed before fork() returns there.
//   LOCK        exclusive while a writer is open, its pid inside
//   nodes.aesg  ("the gate") shared while a reader is open, exclusive while a fold rewrites the main files
class Locks {
 public:
  Locks();
  ~Locks();
  Locks(const Locks&) = delete;
  Locks& operator=(const Locks&) = delete;

  // Throws StorageError that names the holder's pid.
  void take_writer(FileSystem& fs, const std::string& directory);
  // Reader: waits a moment for a fold that is under way.
  void enter_gate(FileSystem& fs, const std::string& directory);
  void leave_gate();
  // Writer: false while a reader is inside.
  bool close_gate(FileSystem& fs, const std::string& directory);
  void open_gate();

  // Whether this process was forked off the one that opened the store.
  bool in_child() const { return in_child_; }
  void release();           // empties LOCK and gives everything up
  void abandon() noexcept;  // called in a forked child

 private:
  std::unique_ptr<File> lock_;
  std::unique_ptr<File> gate_;
  bool in_child_ = false;
};

}  // namespace aesg::storage
