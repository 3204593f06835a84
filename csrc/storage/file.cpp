#include "csrc/storage/file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace aesg::storage {
namespace {

// Linux moves at most 0x7ffff000 bytes a call; a round number below that.
constexpr int64_t kMaxTransfer = int64_t{1} << 30;

std::string failure(const char* what, const std::string& path, int64_t negative_errno) {
  return std::string("cannot ") + what + " '" + path +
         "': " + std::generic_category().message(static_cast<int>(-negative_errno));
}

// Repeats a call that a signal interrupted; one that never gets through is an error like any other.
constexpr int kMaxInterrupted = 1000;

template <typename Call>
auto retried(Call call) {
  auto result = call();
  for (int i = 0; result == -EINTR && i < kMaxInterrupted; ++i) result = call();
  return result;
}

}  // namespace

int64_t File::size() {
  int64_t n = retried([&] { return raw_size(); });
  if (n < 0) throw StorageError(failure("look at", path_, n));
  return n;
}

bool File::removed() {
  int64_t n = retried([&] { return raw_links(); });
  if (n < 0) throw StorageError(failure("look at", path_, n));
  return n == 0;
}

int64_t File::read_until_end(void* data, int64_t bytes, int64_t offset) {
  auto* p = static_cast<uint8_t*>(data);
  int64_t done = 0;
  while (done < bytes) {
    int64_t n =
        retried([&] { return raw_read(p + done, std::min(bytes - done, kMaxTransfer), offset + done); });
    if (n < 0) throw StorageError(failure("read", path_, n));
    if (n == 0) break;
    done += n;
  }
  return done;
}

void File::read_at(void* data, int64_t bytes, int64_t offset) {
  int64_t n = read_until_end(data, bytes, offset);
  if (n != bytes) {
    throw StorageError("'" + path_ + "' ends at byte " + std::to_string(offset + n) + ", expected " +
                       std::to_string(offset + bytes) + " bytes or more");
  }
}

void File::write_at(const void* data, int64_t bytes, int64_t offset) {
  const auto* p = static_cast<const uint8_t*>(data);
  int64_t done = 0;
  while (done < bytes) {
    int64_t n =
        retried([&] { return raw_write(p + done, std::min(bytes - done, kMaxTransfer), offset + done); });
    if (n == 0) n = -ENOSPC;  // no progress and no reason: never loop on it
    if (n < 0) throw StorageError(failure("write", path_, n));
    done += n;
  }
}

void File::resize(int64_t bytes) {
  int result = retried([&] { return raw_resize(bytes); });
  if (result < 0) throw StorageError(failure("resize", path_, result));
}

void File::sync() {
  int result = retried([&] { return raw_sync(); });
  if (result < 0) throw SyncError(failure("sync", path_, result));
}

void File::write_through(const void* data, int64_t bytes, int64_t offset) {
  int64_t n = retried([&] { return raw_write_through(data, bytes, offset); });
  if (n < 0 && n != -EOPNOTSUPP) throw SyncError(failure("write and sync", path_, n));
  if (n == bytes) return;
  write_at(data, bytes, offset);
  sync();
}

void File::map(void* address, int64_t offset, int64_t bytes) {
  if (bytes == 0) return;
  int result = retried([&] { return raw_map(address, offset, bytes); });
  if (result < 0) throw StorageError(failure("map", path_, result));
}

void File::release(void* address, int64_t offset, int64_t bytes) {
  int result = retried([&] { return raw_release(address, offset, bytes); });
  if (result < 0) throw StorageError(failure("release pages of", path_, result));
}

bool File::try_lock(bool exclusive) {
  int result = retried([&] { return raw_lock(exclusive); });
  if (result == -EWOULDBLOCK) return false;
  if (result < 0) throw StorageError(failure("lock", path_, result));
  return true;
}

void File::unlock() {
  int result = retried([&] { return raw_unlock(); });
  if (result < 0) throw StorageError(failure("unlock", path_, result));
}

std::unique_ptr<File> FileSystem::open(const std::string& path, OpenMode mode) {
  int error = 0;
  std::unique_ptr<File> file = raw_open(path, mode, &error);
  for (int i = 0; !file && error == -EINTR && i < kMaxInterrupted; ++i) file = raw_open(path, mode, &error);
  if (file) return file;
  if (error == -ENOENT && mode != OpenMode::kCreate) return nullptr;
  throw StorageError(failure(mode == OpenMode::kRead ? "open" : "open for writing", path, error));
}

PathKind FileSystem::kind(const std::string& path) {
  PathKind kind = PathKind::kMissing;
  int result = retried([&] { return raw_kind(path, &kind); });
  if (result < 0) throw StorageError(failure("look at", path, result));
  return kind;
}

void FileSystem::make_directories(const std::string& path) {
  if (kind(path) == PathKind::kDirectory) return;
  size_t end = path.find_last_not_of('/');
  size_t slash = end == std::string::npos ? end : path.find_last_of('/', end);
  if (slash != std::string::npos && slash > 0) make_directories(path.substr(0, slash));
  int result = retried([&] { return raw_make_directory(path); });
  if (result < 0 && result != -EEXIST) throw StorageError(failure("make directory", path, result));
}

void FileSystem::rename(const std::string& from, const std::string& to) {
  int result = retried([&] { return raw_rename(from, to); });
  if (result < 0) throw StorageError(failure("rename", from, result));
}

void FileSystem::remove(const std::string& path) {
  int result = retried([&] { return raw_remove(path); });
  if (result < 0 && result != -ENOENT) throw StorageError(failure("remove", path, result));
}

void FileSystem::remove_directory(const std::string& path) {
  int result = retried([&] { return raw_remove_directory(path); });
  if (result < 0 && result != -ENOENT) throw StorageError(failure("remove directory", path, result));
}

void FileSystem::sync_directory(const std::string& path) {
  int result = retried([&] { return raw_sync_directory(path); });
  if (result < 0) throw SyncError(failure("sync directory", path, result));
}

}  // namespace aesg::storage
