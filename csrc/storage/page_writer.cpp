#include "csrc/storage/page_writer.h"

#include <algorithm>

namespace aesg::storage {
namespace {

constexpr int64_t kPageLines = kPageBytes / kLineBytes;
constexpr int64_t kChunkPages = 256;

}  // namespace

void PageWriter::add(const Range& range, const uint8_t* lines) {
  for (int64_t line = range.first, end = range.first + range.count; line < end;) {
    int64_t page = line / kPageLines, count = std::min(end, (page + 1) * kPageLines) - line;
    pieces_.push_back({page, static_cast<int32_t>(line % kPageLines), static_cast<int32_t>(count), lines});
    lines += count * kLineBytes;
    line += count;
  }
}

void PageWriter::add_pages(int64_t first, int64_t end) {
  for (int64_t page = first; page < end; ++page) pieces_.push_back({page, 0, 0, nullptr});
}

void PageWriter::flush() {
  std::stable_sort(pieces_.begin(), pieces_.end(),
                   [](const Piece& a, const Piece& b) { return a.page < b.page; });
  std::vector<uint8_t> buffer;
  for (size_t i = 0; i < pieces_.size();) {
    const int64_t first = pieces_[i].page;
    size_t end = i + 1;
    bool changed = pieces_[i].count > 0;
    while (end < pieces_.size() && pieces_[end].page <= pieces_[end - 1].page + 1 &&
           pieces_[end].page < first + kChunkPages) {
      changed |= pieces_[end++].count > 0;
    }
    const int64_t bytes = (pieces_[end - 1].page + 1 - first) * kPageBytes;
    const int64_t offset = kHeaderBytes + first * kPageBytes;
    buffer.resize(static_cast<size_t>(bytes));
    file_.read_at(buffer.data(), bytes, offset);
    for (; i < end; ++i) {
      const Piece& piece = pieces_[i];
      if (piece.count == 0) continue;
      std::memcpy(buffer.data() + (piece.page - first) * kPageBytes + piece.line * kLineBytes, piece.bytes,
                  static_cast<size_t>(piece.count * kLineBytes));
    }
    if (changed) file_.write_at(buffer.data(), bytes, offset);
    sums_.write(which_, first, page_sums(buffer.data(), bytes));
    for (int64_t at = 0; at < bytes; at += kPageBytes) {
      const bool same =
          offset + at + kPageBytes <= live_.mapped() &&
          std::memcmp(buffer.data() + at, live_.base() + offset + at, static_cast<size_t>(kPageBytes)) == 0;
      verdicts_.push_back({first + at / kPageBytes, same});
    }
  }
  pieces_.clear();
}

std::vector<Arena::Run> PageWriter::same_runs() {
  std::stable_sort(verdicts_.begin(), verdicts_.end(),
                   [](const Verdict& a, const Verdict& b) { return a.page < b.page; });
  std::vector<Arena::Run> runs;
  for (size_t i = 0; i < verdicts_.size(); ++i) {
    const auto [page, same] = verdicts_[i];
    if (!same || (i + 1 < verdicts_.size() && verdicts_[i + 1].page == page)) continue;
    const int64_t at = kHeaderBytes + page * kPageBytes;
    if (!runs.empty() && at <= runs.back().end) {
      runs.back().end = at + kPageBytes;
    } else {
      runs.push_back({at, at + kPageBytes});
    }
  }
  return runs;
}

}  // namespace aesg::storage
