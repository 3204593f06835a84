// A reserved address range: what is mapped into it never moves, however much follows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "csrc/storage/file.h"

namespace aesg::storage {

class Arena {
 public:
  // Reserves up to `want` bytes, less where the process may not have so much address space.
  explicit Arena(int64_t want);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* base() const { return base_; }
  int64_t mapped() const { return mapped_; }  // bytes that can be read and written

  // Lays the first `bytes` of the file, privately, at the base, over what was there.
  void map_file(File& file, int64_t bytes);
  int64_t file_bytes() const { return file_bytes_; }  // of them the file is laid under
  // Once the file holds what memory holds in the given runs of bytes (page-aligned, ascending): their private
  // copies are given up, and the file is laid under [file_bytes, end) when one of the runs covers it. Nothing
  // can be seen to change; what fails is left as it is.
  struct Run {
    int64_t first, end;
  };
  void settle(File& file, const std::vector<Run>& runs, int64_t end);
  // Makes bytes [mapped, bytes) usable, zero.
  void grow(int64_t bytes);
  // Makes bytes [from, mapped) zero again. REQUIRES: `from` at or behind the end of the mapped file.
  void clear_from(int64_t from);

 private:
  uint8_t* base_ = nullptr;
  int64_t reserved_ = 0;
  int64_t mapped_ = 0;
  int64_t file_bytes_ = 0;
};

}  // namespace aesg::storage
