// Byte layout of nodes.aesg and edges.aesg, in memory and on disk alike. docs/store_format.md tells the
// whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace aesg::storage {

inline constexpr int64_t kHeaderBytes = 4096;  // one page before the first group of either file
inline constexpr int64_t kGroupRows = 1024;  // rows a group: every column of a group is then 64-byte aligned

// Columns of a row group, in the order of their bytes. Widest first, so that no padding is needed.
enum class NodeColumn : int {
  kVector,        // f32[D]
  kId,            // u64, 0: free slot
  kCreatedAt,     // u64, unix seconds
  kModifiedAt,    // u64, unix seconds
  kInvNorm,       // f32, 1 / |vector|, 0 for a zero vector
  kUseFrequency,  // u32
  kRelevance,     // f32
  kAge,           // u32, consolidations survived
  kStability,     // f32
  kRegionId,      // u32, 0: no region
  kFirstBlock,    // i32, first edge block, -1: none; in a free slot -(next free slot) - 2, -1: end of list
  kIsActive,      // u8
  kReserved,      // u8[3], zero
};
inline constexpr int kNodeColumnCount = 13;

// Whether retrieval reads this column beside the vectors.
constexpr bool is_looked_up(NodeColumn column) {
  return column == NodeColumn::kId || column == NodeColumn::kInvNorm || column == NodeColumn::kRegionId ||
         column == NodeColumn::kFirstBlock || column == NodeColumn::kIsActive;
}

// Whether use changes this column, and consolidation.
constexpr bool is_learnt(NodeColumn column) {
  return column == NodeColumn::kUseFrequency || column == NodeColumn::kRelevance ||
         column == NodeColumn::kAge;
}

class NodeLayout {
 public:
  explicit constexpr NodeLayout(int64_t dim) : dim_(dim) {
    for (int c = 1; c < kNodeColumnCount; ++c) {
      offsets_[static_cast<size_t>(c)] =
          offsets_[static_cast<size_t>(c - 1)] + kGroupRows * row_bytes(static_cast<NodeColumn>(c - 1));
    }
  }

  constexpr int64_t dim() const { return dim_; }
  constexpr int64_t row_bytes(NodeColumn column) const {
    constexpr std::array<int64_t, kNodeColumnCount> bytes = {0, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 1, 3};
    return column == NodeColumn::kVector ? 4 * dim_ : bytes[static_cast<size_t>(column)];
  }
  // Bytes of one row over all columns: 4 D + 56.
  constexpr int64_t all_row_bytes() const { return 4 * dim_ + 56; }
  constexpr int64_t group_bytes() const { return kGroupRows * all_row_bytes(); }  // a multiple of 4096
  // Start of a column inside its group.
  constexpr int64_t offset(NodeColumn column) const { return offsets_[static_cast<size_t>(column)]; }

 private:
  int64_t dim_;
  std::array<int64_t, kNodeColumnCount> offsets_{};
};

inline constexpr int kBlockEdges = 7;  // edges that fit one cache line beside next and count

enum class EdgeKind : uint8_t { kSimilarity = 0, kSuccession = 1, kAbstraction = 2 };
inline constexpr uint8_t kEdgeKindMask = 0x03;
inline constexpr uint8_t kEdgeUpBit = 0x40;    // abstraction edges: the target was abstracted from the source
inline constexpr uint8_t kEdgeUsedBit = 0x80;  // used since the last sweep

// What spreading reads: one cache line. Edges fill the block from the front.
struct HotBlock {
  int32_t target[kBlockEdges];  // slot, -1: empty
  float strength[kBlockEdges];  // weight * confidence
  int32_t next;                 // next block of the chain or of the free list, -1: end
  int32_t count;                // edges in this block
};
static_assert(sizeof(HotBlock) == 64);

// What learning reads and writes.
struct ColdBlock {
  float weight[kBlockEdges];
  float confidence[kBlockEdges];
  uint32_t use_count[kBlockEdges];
  uint8_t tag[kBlockEdges];  // EdgeKind, kEdgeUpBit and kEdgeUsedBit
  uint8_t reserved;
  int32_t source;  // slot, -1: free block
};
static_assert(sizeof(ColdBlock) == 96);

inline constexpr int64_t kHotGroupBytes = kGroupRows * static_cast<int64_t>(sizeof(HotBlock));
inline constexpr int64_t kColdGroupBytes = kGroupRows * static_cast<int64_t>(sizeof(ColdBlock));
inline constexpr int64_t kEdgeGroupBytes = kHotGroupBytes + kColdGroupBytes;  // 160 KiB

}  // namespace aesg::storage
