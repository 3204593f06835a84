#include "csrc/storage/format.h"

#include <algorithm>

#include "csrc/storage/file.h"

namespace aesg::storage {

std::string implausible(const Counters& c) {
  auto over = [](uint64_t n, uint64_t limit) { return n > limit; };
  if (over(c.node_count, kMaxRows)) return "node_count is " + std::to_string(c.node_count);
  if (over(c.block_count, kMaxRows)) return "block_count is " + std::to_string(c.block_count);
  if (over(c.active_count, c.node_count)) {
    return "active_count " + std::to_string(c.active_count) + " exceeds node_count " +
           std::to_string(c.node_count);
  }
  if (over(c.edge_count, c.block_count * kBlockEdges)) {
    return "edge_count " + std::to_string(c.edge_count) + " exceeds the room of " +
           std::to_string(c.block_count) + " blocks";
  }
  if (c.free_slot < -1 || c.free_slot >= static_cast<int64_t>(c.node_count)) {
    return "free_slot is " + std::to_string(c.free_slot);
  }
  if (c.free_block < -1 || c.free_block >= static_cast<int64_t>(c.block_count)) {
    return "free_block is " + std::to_string(c.free_block);
  }
  if (over(c.event_count, uint64_t{1} << 56)) return "event_count is " + std::to_string(c.event_count);
  return "";
}

HeaderPage make_header_page(const char* magic, int64_t dim, uint64_t chain) {
  HeaderPage page{};
  std::memcpy(page.header.magic, magic, 8);
  page.header.version = kFormatVersion;
  page.header.endian = kEndianTag;
  page.header.vector_dim = static_cast<uint64_t>(dim);
  seal(page.header);
  page.stamp.chain = chain;
  seal(page.stamp);
  return page;
}

void write_stamp(File& file, uint64_t chain) {
  FileStamp stamp{};
  stamp.chain = chain;
  seal(stamp);
  file.write_at(&stamp, sizeof stamp, sizeof(FileHeader));
}

uint64_t check_header_page(File& file, const char* magic, int64_t dim, bool* stamp_sound) {
  HeaderPage page;
  file.read_at(&page, sizeof page, 0);
  const FileHeader& h = page.header;
  if (!has_magic(h.magic, magic)) {
    throw StorageError("'" + file.path() + "' is not a file of ours: expected it to begin with " + magic);
  }
  if (!sealed(h)) throw StorageError("'" + file.path() + "': the header is damaged (its checksum is wrong)");
  if (h.version > kFormatVersion) {
    throw StorageError("'" + file.path() + "' has format version " + std::to_string(h.version) +
                       ", newer than the " + std::to_string(kFormatVersion) + " this library knows");
  }
  if (h.version == 0 || h.endian != kEndianTag) {
    throw StorageError("'" + file.path() + "': the header names format version " + std::to_string(h.version) +
                       " and another byte order or none");
  }
  if (h.vector_dim != static_cast<uint64_t>(dim)) {
    throw StorageError("'" + file.path() + "' holds vectors of " + std::to_string(h.vector_dim) +
                       " dimensions, meta.npy of " + std::to_string(dim) + ": they do not belong together");
  }
  if (std::any_of(std::begin(page.rest), std::end(page.rest), [](uint8_t b) { return b != 0; })) {
    throw StorageError("'" + file.path() + "': the header page is damaged (bytes that must be zero are not)");
  }
  *stamp_sound = sealed(page.stamp);
  return page.stamp.chain;
}

}  // namespace aesg::storage
