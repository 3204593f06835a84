#include "csrc/storage/checksums.h"

#include <algorithm>

namespace aesg::storage {
namespace {

constexpr int64_t kStripePages = 256;

}  // namespace

// Calls piece(byte offset in the file, index of the first sum, count).
template <typename Piece>
void Checksums::for_each_piece(Summed which, int64_t first_page, int64_t pages, Piece piece) {
  for (int64_t done = 0; done < pages;) {
    int64_t page = first_page + done;
    int64_t count = std::min(pages - done, kStripePages - page % kStripePages);
    int64_t offset = kHeaderBytes + page / kStripePages * 4096 +
                     static_cast<int64_t>(which) * kStripePages * 4 + page % kStripePages * 4;
    piece(offset, done, count);
    done += count;
  }
}

void Checksums::write(Summed which, int64_t first_page, const std::vector<uint32_t>& sums) {
  for_each_piece(which, first_page, static_cast<int64_t>(sums.size()),
                 [&](int64_t offset, int64_t index, int64_t count) {
                   file_.write_at(sums.data() + index, count * 4, offset);
                 });
}

std::vector<uint32_t> Checksums::read(Summed which, int64_t first_page, int64_t pages) {
  std::vector<uint32_t> sums(static_cast<size_t>(pages));
  for_each_piece(which, first_page, pages, [&](int64_t offset, int64_t index, int64_t count) {
    file_.read_until_end(sums.data() + index, count * 4, offset);
  });
  return sums;
}

std::vector<uint32_t> page_sums(const void* data, int64_t bytes) {
  const auto* p = static_cast<const uint8_t*>(data);
  std::vector<uint32_t> sums;
  sums.reserve(static_cast<size_t>((bytes + kPageBytes - 1) / kPageBytes));
  constexpr int64_t kAhead =
      2 * kPageBytes;  // four streams inside a page are too short for the processor to foresee
  for (int64_t at = 0; at < bytes; at += kPageBytes) {
    for (int64_t line = at + kAhead; line < std::min(at + kAhead + kPageBytes, bytes); line += kLineBytes) {
      __builtin_prefetch(p + line);
    }
    sums.push_back(crc32c(0, p + at, static_cast<size_t>(std::min(kPageBytes, bytes - at))));
  }
  return sums;
}

std::vector<uint32_t> page_sums_of(File& file, int64_t first_page, int64_t pages) {
  constexpr int64_t kChunkPages = 256;
  std::vector<uint8_t> buffer(static_cast<size_t>(std::min(pages, kChunkPages) * kPageBytes));
  std::vector<uint32_t> sums;
  sums.reserve(static_cast<size_t>(pages));
  for (int64_t done = 0; done < pages; done += kChunkPages) {
    int64_t bytes = std::min(pages - done, kChunkPages) * kPageBytes;
    file.read_at(buffer.data(), bytes, kHeaderBytes + (first_page + done) * kPageBytes);
    for (uint32_t sum : page_sums(buffer.data(), bytes)) sums.push_back(sum);
  }
  return sums;
}

}  // namespace aesg::storage
