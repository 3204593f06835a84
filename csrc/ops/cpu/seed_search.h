// CPU kernel of seed_search on plain pointers. The caller splits rows and queries over threads.
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"
#include "csrc/ops/cpu/top_k.h"

namespace aesg::cpu {

struct SeedSearch {
  const float* queries;          // [B, D] contiguous, finite
  int64_t batch;                 // B
  int64_t dim;                   // D
  Column<const float> vectors;   // rows of D contiguous floats
  Column<const float> inv_norm;  // or null: computed on the way
  Column<const uint8_t> active;  // or null: all rows count
  int64_t count;                 // rows looked at: 0 .. count-1
  float min_score;               // similarities below it are no result
  bool exact = false;            // no sum in another order, not even to sift
};

// What ranges should start at multiples of: rows of a panel, queries of a chunk of so large a batch.
int64_t seed_search_panel_rows();
int64_t seed_search_query_chunk(int64_t dim, int64_t batch);

// The dot product as the search computes it, bit for bit.
float seed_search_dot(const float* unit_query, const float* row, int64_t dim);

// The same for eight rows, whose chains of additions overlap.
void seed_search_eight_dots(const float* unit_query, const float* const* rows, int64_t dim, float* dots);

// What a query is multiplied with to have length 1; 0 for a zero query.
float query_scale(const float* query, int64_t dim);

// Scales every query to length 1 (or 0) and lays them out, block by block as the kernel reads them, in
// packed[B * D].
void seed_search_prepare(const SeedSearch& job, float* packed);

// Offers every row of [first_row, last_row) to best[b] of the queries [first_query, last_query), rows
// ascending. REQUIRES: both ranges begin at multiples (above) and end at one or with the rows or queries;
// best[b] reset. Thread safe for disjoint `best`; scratch is kept per thread between calls.
void seed_search_range(const SeedSearch& job, const float* packed, int64_t first_query, int64_t last_query,
                       int64_t first_row, int64_t last_row, TopK* best);

}  // namespace aesg::cpu
