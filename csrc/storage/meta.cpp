#include "csrc/storage/meta.h"

#include <array>
#include <cstring>

namespace aesg::storage {
namespace {

// The .npy header (format 1.0) filled up with spaces to one page, so that each slot has sectors of its own.
std::array<char, 4096> npy_page() {
  std::string text =
      "{'descr': [('magic', '|S8'), ('version', '<u4'), ('endian', '<u4'), ('vector_dim', '<u8'), "
      "('epoch', '<u8'), ('chain', '<u8'), ('generation', '<u8'), ('node_count', '<u8'), "
      "('active_count', '<u8'), ('edge_count', '<u8'), ('block_count', '<u8'), ('next_id', '<u8'), "
      "('free_slot', '<i8'), ('free_block', '<i8'), ('event_count', '<u8'), ('node_groups', '<u8'), "
      "('edge_groups', '<u8'), ('state_bytes', '<u8'), ('state_crc', '<u4'), ('reserved', '|V3952'), "
      "('crc', '<u4')], 'fortran_order': False, 'shape': (2,), }";
  std::array<char, 4096> page;
  page.fill(' ');
  constexpr char kStart[] = "\x93NUMPY\x01\x00\xF6\x0F";  // header length 4086 = 0x0FF6
  std::memcpy(page.data(), kStart, 10);
  std::memcpy(page.data() + 10, text.data(), text.size());
  page.back() = '\n';
  return page;
}

// Empty when sound.
std::string wrong_with(const MetaSlot& slot, uint64_t index) {
  if (!has_magic(slot.magic, kMetaMagic)) return "no " + std::string(kMetaMagic) + " at its beginning";
  if (!sealed(slot)) return "its checksum is wrong";
  if (slot.endian != kEndianTag) return "another byte order";
  if (slot.epoch % 2 != index) return "it lies in the other slot's place";
  return "";
}

}  // namespace

MetaKind meta_kind(File& file) {
  std::array<char, 4096> page{};
  int64_t n = file.read_until_end(page.data(), static_cast<int64_t>(page.size()), 0);
  if (page == npy_page()) return MetaKind::kOurs;
  // 3.0.0 wrote np.save of a dict: a 0-d object array, so the data is a pickle.
  if (n >= 128 && std::memcmp(page.data(), "\x93NUMPY", 6) == 0) {
    std::string header(page.data() + 10, 118);
    if (header.find("'|O'") != std::string::npos && header.find("'shape': ()") != std::string::npos) {
      return MetaKind::kVersion3;
    }
  }
  return MetaKind::kForeign;
}

MetaSlot first_slot(int64_t dim, uint64_t epoch) {
  MetaSlot slot{};
  std::memcpy(slot.magic, kMetaMagic, 8);
  slot.version = kFormatVersion;
  slot.endian = kEndianTag;
  slot.vector_dim = static_cast<uint64_t>(dim);
  slot.epoch = epoch;
  slot.chain = first_chain(dim);
  set_counters(slot, Counters{});
  return slot;
}

void create_meta(File& file, int64_t dim) {
  file.resize(0);
  std::array<char, 4096> page = npy_page();
  file.write_at(page.data(), static_cast<int64_t>(page.size()), 0);
  write_slot(file, first_slot(dim, 0));
  write_slot(file, first_slot(dim, 1));
}

void write_slot(File& file, MetaSlot slot) {
  seal(slot);
  file.write_at(&slot, sizeof slot, 4096 * static_cast<int64_t>(1 + slot.epoch % 2));
  file.sync();
}

MetaSlot read_meta(File& file, std::vector<std::string>* findings) {
  if (meta_kind(file) != MetaKind::kOurs) {
    throw StorageError("'" + file.path() + "' is not a file of ours, or its first page is damaged");
  }
  if (file.size() != kMetaBytes) {
    throw StorageError("'" + file.path() + "' has " + std::to_string(file.size()) + " bytes, expected " +
                       std::to_string(kMetaBytes));
  }
  std::array<MetaSlot, 2> slots;
  file.read_at(slots.data(), sizeof slots, 4096);
  std::array<std::string, 2> wrong = {wrong_with(slots[0], 0), wrong_with(slots[1], 1)};
  for (size_t i = 0; findings && i < 2; ++i) {
    if (!wrong[i].empty()) findings->push_back("meta.npy: slot " + std::to_string(i) + ": " + wrong[i]);
  }
  if (!wrong[0].empty() && !wrong[1].empty()) {
    throw StorageError("'" + file.path() + "' is damaged: slot 0: " + wrong[0] + "; slot 1: " + wrong[1]);
  }
  bool both = wrong[0].empty() && wrong[1].empty();
  size_t newer = wrong[1].empty() && (!both || slots[1].epoch > slots[0].epoch) ? 1 : 0;
  const MetaSlot& slot = slots[newer];
  if (slot.version > kFormatVersion) {
    throw StorageError("'" + file.path() + "' has format version " + std::to_string(slot.version) +
                       ", newer than the " + std::to_string(kFormatVersion) + " this library knows");
  }
  if (both && slots[newer].epoch != slots[1 - newer].epoch + 1) {
    throw StorageError("'" + file.path() + "' is damaged: its slots are of epochs " +
                       std::to_string(slots[0].epoch) + " and " + std::to_string(slots[1].epoch));
  }
  std::string odd = implausible(counters_of(slot));
  if (slot.version == 0 || slot.vector_dim < 1 || slot.vector_dim > kMaxDim) {
    odd =
        "format version " + std::to_string(slot.version) + ", vector_dim " + std::to_string(slot.vector_dim);
  } else if (odd.empty() && (slot.node_groups < static_cast<uint64_t>(groups_for(slot.node_count)) ||
                             slot.edge_groups < static_cast<uint64_t>(groups_for(slot.block_count)) ||
                             slot.node_groups > kMaxRows || slot.edge_groups > kMaxRows ||
                             slot.state_bytes > uint64_t{1} << 56)) {
    odd = "row groups and counts do not agree";
  }
  if (!odd.empty()) throw StorageError("'" + file.path() + "' cannot be: " + odd);
  return slot;
}

}  // namespace aesg::storage
