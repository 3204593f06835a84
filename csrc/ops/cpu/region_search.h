// CPU kernels of region_search on plain pointers: an index of coarse codes in cells, and the search in it.
//
// A cell holds what lies nearest to its centre, in a chain of panels of 32 rows. A row is kept as 8-bit
// codes, four dimensions of 32 rows side by side (codes[d / 4][row][d % 4]), so that one instruction
// multiplies four dimensions of eight rows, and a cell of 1000 rows is read in a quarter of the bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/ops/columns.h"
#include "csrc/ops/cpu/top_k.h"

namespace aesg::cpu {

inline constexpr int64_t kCellPanel = 32;  // rows a panel
inline constexpr int64_t kQuad = 4;        // dimensions side by side
inline constexpr int kCodeZero = 128;      // the code of 0: codes are unsigned
inline constexpr int kCodeLimit = 127;     // codes of rows reach from 1 to 255
inline constexpr int kQueryLimit = 63;     // 2 * 255 * 63 fits the 16 bits in which pairs are added

// Bytes of a panel: 64 (i32 next panel of the chain, -1: it ends), slots i32[32] (-1: none), scales f32[32]
// (step of the codes * inverse norm, NaN where there is no slot), codes u8[Q][32][4], Q = ceil(D / 4).
struct Panel {
  uint8_t* bytes;
  int32_t& next() const { return *reinterpret_cast<int32_t*>(bytes); }
  int32_t* slots() const { return reinterpret_cast<int32_t*>(bytes + 64); }
  float* scales() const { return reinterpret_cast<float*>(bytes + 192); }
  uint8_t* codes() const { return bytes + 320; }
};

struct Panels {
  int64_t count;  // P
  int64_t bytes;  // of one
  uint8_t* base;
  Panel operator[](int64_t i) const { return {base + i * bytes}; }
};

inline int64_t panels_of(int64_t rows) { return (rows + kCellPanel - 1) / kCellPanel; }
inline int64_t panel_bytes(int64_t dim) { return 320 + (dim + 3) / 4 * kCellPanel * kQuad; }

struct RegionSearch {
  const float* queries;  // [B, D] contiguous, finite
  int64_t batch, dim;
  Column<const float> vectors, inv_norm;
  Column<const uint8_t> active;
  Panels centers;        // one row a centre, `slots` being their numbers
  const int32_t* heads;  // [R] first panel of a cell, -1: none
  int64_t cells;         // R
  Panels panels;
  const int64_t* pending;  // slots in no cell, compared one by one
  int64_t pending_count;
  int64_t probes;  // cells looked into
  int64_t pool;    // rows compared exactly
  int64_t k;
  float min_score;
};

// Entries with a rough score; keeps the `keep` first in the order of ranks_before, whatever order they come
// in.
class Reservoir {
 public:
  struct Entry {
    float score;
    int32_t slot;
  };
  void reset(int64_t keep);
  float bar() const { return bar_; }  // entries below it need not be pushed
  void push(float score, int32_t slot) {
    entries_[size_++] = {score, slot};
    if (size_ == entries_.size()) shrink();
  }
  const Entry* finish();  // the entries kept, in no order
  size_t size() const { return size_; }

 private:
  void shrink();
  size_t keep_ = 0, size_ = 0;
  float bar_ = 0;
  std::vector<Entry> entries_;
};

// Searches one query after the other on one thread; its memory is kept between calls.
class RegionSearcher {
 public:
  // The k best of query b among the pool and the pending, best first, padded with 0 and -1. False where a
  // panel or slot lies outside the index or the graph: it is damaged.
  bool run(const RegionSearch& job, int64_t b, float* scores, int64_t* slots);

  // The cell nearest to a row by its rough score, of equals the first. REQUIRES: there is one.
  int32_t nearest_cell(const Panels& centers, const float* row, float inverse_norm, int64_t dim);

 private:
  void encode_query(const float* query, float scale, int64_t dim);
  bool scan_cell(const RegionSearch& job, int32_t cell);
  void compare(const RegionSearch& job, const int64_t* slots, size_t n);

  std::vector<float> unit_;     // [D]
  std::vector<int32_t> quads_;  // [Q] four signed codes each
  int32_t offset_ = 0;          // kCodeZero * sum of the query's codes
  Reservoir cells_, rows_;
  std::vector<int64_t> chosen_;
  TopK best_;
};

// Codes of a row into lane `lane` of a panel; returns their step (times the inverse norm: the scale).
float encode_row(const float* row, int64_t dim, int64_t lane, uint8_t* panel_codes);

}  // namespace aesg::cpu
