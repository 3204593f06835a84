// The I/O seam: every system call of the store goes through these two classes, and tests replace them to
// make calls fail, disks fill up and power go.
//
// The raw_* functions are one system call each and answer as the kernel does, a negative errno for a failure;
// EINTR and short transfers are handled once, above them, and every failure leaves as a StorageError that
// names the file and the reason.
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>

#include "csrc/base/error.h"

namespace aesg::storage {

// A sync that failed: what was written since the last one may be gone, whatever later syncs say.
class SyncError : public StorageError {
 public:
  using StorageError::StorageError;
};

inline constexpr int64_t kBlockBytes = 4096;  // what disks write whole, and past the page cache

enum class OpenMode { kRead, kWrite, kCreate };  // kCreate: write, made when missing, kept when there

class File {
 public:
  explicit File(std::string path) : path_(std::move(path)) {}
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }

  int64_t size();
  bool removed();  // no directory holds it any more: what is written now is lost when it is closed
  // Fills all of `bytes`; a file that ends before is an error.
  void read_at(void* data, int64_t bytes, int64_t offset);
  // Reads up to the end of the file; returns how much.
  int64_t read_until_end(void* data, int64_t bytes, int64_t offset);
  void write_at(const void* data, int64_t bytes, int64_t offset);
  void resize(int64_t bytes);
  // Asks that these bytes start on their way to the disk, so that a sync waits less. Promises nothing.
  void begin_sync(int64_t offset, int64_t bytes) { raw_begin_sync(offset, bytes); }
  void sync();  // throws SyncError
  // Writes these bytes and makes them durable, them alone; offset, length and address are multiples of
  // kBlockBytes. Past the page cache where the system can: for a few blocks that the file has already, a
  // tenth quicker than write_at() and sync(). Throws what these throw; SyncError where it cannot tell which
  // failed.
  void write_through(const void* data, int64_t bytes, int64_t offset);
  // Lays bytes [offset, offset + bytes) over `address` (both page-aligned, inside a range the caller owns),
  // private to the process: stores never reach the file. REQUIRES: the file is at least that long.
  void map(void* address, int64_t offset, int64_t bytes);
  // Gives up the private copies of mapped pages: what is read there next are the file's bytes [offset, ...).
  void release(void* address, int64_t offset, int64_t bytes);
  bool try_lock(bool exclusive);  // flock, not waiting; false: someone else holds it
  void unlock();
  virtual void close() = 0;  // gives up the descriptor (and its locks, when no fork shares them)

 protected:
  virtual int64_t raw_size() = 0;
  virtual int64_t raw_links() = 0;
  virtual int64_t raw_read(void* data, int64_t bytes, int64_t offset) = 0;
  virtual int64_t raw_write(const void* data, int64_t bytes, int64_t offset) = 0;
  virtual int raw_resize(int64_t bytes) = 0;
  virtual void raw_begin_sync(int64_t /*offset*/, int64_t /*bytes*/) {}
  virtual int raw_sync() = 0;
  // -EOPNOTSUPP or fewer bytes: the usual way is taken, for all of them.
  virtual int64_t raw_write_through(const void* /*data*/, int64_t /*bytes*/, int64_t /*offset*/) {
    return -EOPNOTSUPP;
  }
  virtual int raw_map(void* address, int64_t offset, int64_t bytes) = 0;
  virtual int raw_release(void* address, int64_t offset, int64_t bytes) = 0;
  virtual int raw_lock(bool exclusive) = 0;
  virtual int raw_unlock() = 0;

 private:
  std::string path_;
};

enum class PathKind { kMissing, kFile, kDirectory, kOther };

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  static FileSystem& real();

  // Null when kRead or kWrite and the file is missing.
  std::unique_ptr<File> open(const std::string& path, OpenMode mode);
  PathKind kind(const std::string& path);
  void make_directories(const std::string& path);  // parents too; those already there are fine
  void rename(const std::string& from, const std::string& to);
  void remove(const std::string& path);            // a file; missing is fine
  void remove_directory(const std::string& path);  // an empty one; missing is fine
  void sync_directory(const std::string& path);    // throws SyncError

 protected:
  // On failure null and a negative errno in *error.
  virtual std::unique_ptr<File> raw_open(const std::string& path, OpenMode mode, int* error) = 0;
  virtual int raw_kind(const std::string& path, PathKind* kind) = 0;
  virtual int raw_make_directory(const std::string& path) = 0;
  virtual int raw_rename(const std::string& from, const std::string& to) = 0;
  virtual int raw_remove(const std::string& path) = 0;
  virtual int raw_remove_directory(const std::string& path) = 0;
  virtual int raw_sync_directory(const std::string& path) = 0;
};

}  // namespace aesg::storage
