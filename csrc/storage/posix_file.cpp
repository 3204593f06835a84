// The seam over the real system calls.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "csrc/storage/file.h"

namespace aesg::storage {
namespace {

class PosixFile final : public File {
 public:
  PosixFile(std::string path, int fd) : File(std::move(path)), fd_(fd) {}
  ~PosixFile() override { close(); }

  void close() override {
    if (fd_ >= 0) ::close(fd_);
    if (through_ >= 0) ::close(through_);
    fd_ = -1;
    through_ = kRefused;
  }

 protected:
  int64_t raw_size() override {
    struct stat info;
    return ::fstat(fd_, &info) == 0 ? info.st_size : -errno;
  }
  // The number of names alone: fstat reads the times as well, and a Linux file whose times were read takes a
  // new one at its next write, which makes that write's sync up to 1.4 times as long (260 us for 185).
  int64_t raw_links() override {
#if defined(STATX_NLINK)
    struct statx names;
    if (::statx(fd_, "", AT_EMPTY_PATH, STATX_NLINK, &names) == 0 && (names.stx_mask & STATX_NLINK)) {
      return names.stx_nlink;
    }
#endif
    struct stat info;
    return ::fstat(fd_, &info) == 0 ? static_cast<int64_t>(info.st_nlink) : -errno;
  }
  int64_t raw_read(void* data, int64_t bytes, int64_t offset) override {
    return answer(::pread(fd_, data, static_cast<size_t>(bytes), offset));
  }
  int64_t raw_write(const void* data, int64_t bytes, int64_t offset) override {
    return answer(::pwrite(fd_, data, static_cast<size_t>(bytes), offset));
  }
  int raw_resize(int64_t bytes) override { return code(::ftruncate(fd_, bytes)); }
#if defined(SYNC_FILE_RANGE_WRITE)
  // What goes wrong with these bytes is told by the fdatasync that follows.
  void raw_begin_sync(int64_t offset, int64_t bytes) override {
    ::sync_file_range(fd_, offset, bytes, SYNC_FILE_RANGE_WRITE);
  }
#endif
  int raw_sync() override { return code(::fdatasync(fd_)); }
#if defined(O_DIRECT)
  // A second descriptor past the page cache. Where the file system has none, or wants larger blocks than
  // ours, the answer stays no.
  int64_t raw_write_through(const void* data, int64_t bytes, int64_t offset) override {
    if (through_ == kUntried) {
      const std::string self = "/proc/self/fd/" + std::to_string(fd_);
      through_ = ::open(self.c_str(), O_WRONLY | O_CLOEXEC | O_DIRECT | O_DSYNC);
      if (through_ < 0) through_ = kRefused;
    }
    if (through_ < 0) return -EOPNOTSUPP;
    const ssize_t n = ::pwrite(through_, data, static_cast<size_t>(bytes), offset);
    if (n < 0 && errno == EINVAL) {
      ::close(through_);
      through_ = kRefused;
      return -EOPNOTSUPP;
    }
    return answer(n);
  }
#endif
  int raw_map(void* address, int64_t offset, int64_t bytes) override {
    void* at = ::mmap(address, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd_, offset);
    return at == MAP_FAILED ? -errno : 0;
  }
  int raw_release(void* address, int64_t, int64_t bytes) override {
    return code(::madvise(address, static_cast<size_t>(bytes), MADV_DONTNEED));
  }
  int raw_lock(bool exclusive) override {
    return code(::flock(fd_, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB));
  }
  int raw_unlock() override { return code(::flock(fd_, LOCK_UN)); }

 private:
  static int64_t answer(ssize_t n) { return n < 0 ? -errno : n; }
  static int code(int result) { return result < 0 ? -errno : 0; }

  static constexpr int kUntried = -1, kRefused = -2;

  int fd_;
  int through_ = kUntried;  // descriptor of raw_write_through
};

class PosixFileSystem final : public FileSystem {
 protected:
  std::unique_ptr<File> raw_open(const std::string& path, OpenMode mode, int* error) override {
    // O_NONBLOCK: a pipe put where a file belongs must not hang the open; it is refused below.
    int flags = O_CLOEXEC | O_NONBLOCK | (mode == OpenMode::kRead ? O_RDONLY : O_RDWR);
    if (mode == OpenMode::kCreate) flags |= O_CREAT;
    int fd = ::open(path.c_str(), flags, 0666);
    if (fd < 0) {
      *error = -errno;
      return nullptr;
    }
    struct stat info;
    *error = ::fstat(fd, &info) != 0 ? -errno : S_ISREG(info.st_mode) ? 0 : -EINVAL;
    if (*error != 0) {
      ::close(fd);
      return nullptr;
    }
    return std::make_unique<PosixFile>(path, fd);
  }
  int raw_kind(const std::string& path, PathKind* kind) override {
    struct stat info;
    if (::stat(path.c_str(), &info) != 0) {
      *kind = PathKind::kMissing;
      return errno == ENOENT ? 0 : -errno;
    }
    *kind = S_ISREG(info.st_mode)   ? PathKind::kFile
            : S_ISDIR(info.st_mode) ? PathKind::kDirectory
                                    : PathKind::kOther;
    return 0;
  }
  int raw_make_directory(const std::string& path) override { return code(::mkdir(path.c_str(), 0777)); }
  int raw_rename(const std::string& from, const std::string& to) override {
    return code(::rename(from.c_str(), to.c_str()));
  }
  int raw_remove(const std::string& path) override { return code(::unlink(path.c_str())); }
  int raw_remove_directory(const std::string& path) override { return code(::rmdir(path.c_str())); }
  int raw_sync_directory(const std::string& path) override {
    int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int result = code(::fsync(fd));
    ::close(fd);
    return result;
  }

 private:
  static int code(int result) { return result < 0 ? -errno : 0; }
};

}  // namespace

FileSystem& FileSystem::real() {
  static PosixFileSystem file_system;
  return file_system;
}

}  // namespace aesg::storage
