#include "csrc/storage/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "csrc/storage/format.h"

namespace aesg::storage {
namespace {

int64_t page_size() {
  static const int64_t size = ::sysconf(_SC_PAGESIZE);
  return size;
}

}  // namespace

Arena::Arena(int64_t want) {
  for (int64_t bytes = round_up(want, page_size()); bytes >= (int64_t{64} << 20); bytes /= 2) {
    void* at = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at != MAP_FAILED) {
      base_ = static_cast<uint8_t*>(at);
      reserved_ = bytes;
      return;
    }
  }
  throw StorageError("cannot reserve even 64 MiB of address space for a store");
}

Arena::~Arena() { ::munmap(base_, static_cast<size_t>(reserved_)); }

void Arena::map_file(File& file, int64_t bytes) {
  if (bytes > reserved_) {
    throw StorageError("'" + file.path() + "' needs " + std::to_string(bytes) +
                       " bytes of address space, reserved are " + std::to_string(reserved_));
  }
  file.map(base_, 0, bytes);
  mapped_ = std::max(mapped_, bytes);
  file_bytes_ = bytes;
}

void Arena::settle(File& file, const std::vector<Run>& runs, int64_t end) {
  if (page_size() != kPageBytes) return;  // runs end where a page of the store ends
  try {
    for (const Run& run : runs) {
      int64_t to = std::min(run.end, file_bytes_);
      if (run.first < to) file.release(base_ + run.first, run.first, to - run.first);
    }
    for (const Run& run : runs) {
      if (run.first > file_bytes_ || run.end < end || file_bytes_ >= end || end > mapped_) continue;
      file.map(base_ + file_bytes_, file_bytes_, end - file_bytes_);
      file_bytes_ = end;
    }
  } catch (const StorageError&) {
    // Only memory is at stake.
  }
}

void Arena::grow(int64_t bytes) {
  if (bytes <= mapped_) return;
  if (bytes > reserved_) {
    throw StorageError("the store would need " + std::to_string(bytes) +
                       " bytes of address space, reserved are " + std::to_string(reserved_));
  }
  // The rest of a page that the file ends in is zero and writable already.
  int64_t from = round_up(mapped_, page_size()), to = round_up(bytes, page_size());
  if (to > from && ::mprotect(base_ + from, static_cast<size_t>(to - from), PROT_READ | PROT_WRITE) != 0) {
    throw StorageError("no memory for " + std::to_string(to - from) + " more bytes of the store");
  }
#if defined(MADV_POPULATE_WRITE)
  // Much at once will be written at once: huge pages, and all in one call, make it ready in a third of the
  // time that a fault for each small page takes.
  constexpr int64_t kMuch = 16 << 20;
  if (to - from >= kMuch) {
    ::madvise(base_ + from, static_cast<size_t>(to - from), MADV_HUGEPAGE);
    ::madvise(base_ + from, static_cast<size_t>(to - from), MADV_POPULATE_WRITE);
  }
#endif
  mapped_ = bytes;
}

void Arena::clear_from(int64_t from) {
  int64_t page = std::min(round_up(from, page_size()), mapped_);
  if (from < page) std::memset(base_ + from, 0, static_cast<size_t>(page - from));
  if (page < mapped_) ::madvise(base_ + page, static_cast<size_t>(mapped_ - page), MADV_DONTNEED);
}

}  // namespace aesg::storage
