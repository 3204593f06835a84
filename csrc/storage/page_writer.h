// What a fold writes into a main file, page by page: each touched page is read, changed, summed and written
// once, whatever the number of its changes.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/storage/arena.h"
#include "csrc/storage/checksums.h"
#include "csrc/storage/file.h"
#include "csrc/storage/format.h"

namespace aesg::storage {

class PageWriter {
 public:
  // `live`: the memory that stands for the file's bytes.
  PageWriter(File& file, Checksums sums, Summed which, const Arena& live)
      : file_(file), sums_(sums), which_(which), live_(live) {}

  // Later changes win. The bytes must live until flush().
  void add(const Range& range, const uint8_t* lines);
  // Pages [first, end) are summed although nothing may change in them.
  void add_pages(int64_t first, int64_t end);
  void flush();

  // Runs of the flushed pages in which the file now holds what memory does, for Arena::settle.
  std::vector<Arena::Run> same_runs();

 private:
  struct Piece {
    int64_t page;
    int32_t line;  // in the page
    int32_t count;
    const uint8_t* bytes;
  };

  File& file_;
  Checksums sums_;
  Summed which_;
  const Arena& live_;
  std::vector<Piece> pieces_;
  struct Verdict {
    int64_t page;
    bool same;
  };
  std::vector<Verdict> verdicts_;  // in the order of time: a later one of the same page holds
};

}  // namespace aesg::storage
