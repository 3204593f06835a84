// checksums.aesg: a CRC-32C for every 4096 bytes of the columns and of the event log, kept outside them.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/storage/file.h"
#include "csrc/storage/format.h"

namespace aesg::storage {

enum class Summed { kNodes = 0, kEdges = 1, kLog = 2 };

// Page p of a file: bytes [4096 p, 4096 p + 4096) behind its header page (the log has none and its last page
// may be short). The table is made of 4096-byte stripes; stripe s holds the sums of pages 256 s .. 256 s +
// 255 of nodes, edges and log, and 1024 zero bytes.
class Checksums {
 public:
  explicit Checksums(File& file) : file_(file) {}

  void write(Summed which, int64_t first_page, const std::vector<uint32_t>& sums);
  std::vector<uint32_t> read(Summed which, int64_t first_page, int64_t pages);  // 0 where none was written

 private:
  template <typename Piece>
  void for_each_piece(Summed which, int64_t first_page, int64_t pages, Piece piece);

  File& file_;
};

std::vector<uint32_t> page_sums(const void* data, int64_t bytes);

// Reads pages [first, first + pages) of a file with header page; returns their sums.
std::vector<uint32_t> page_sums_of(File& file, int64_t first_page, int64_t pages);

}  // namespace aesg::storage
