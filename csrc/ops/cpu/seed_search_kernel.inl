// Body of the seed_search kernel for one instruction set; see simd.h. Included by seed_search.cpp only.
//
// A panel holds 2 * kLanes rows transposed: panel[d][row]. A query block holds up to kQueryBlock queries as
// block[d][query]. Every (query, row) pair owns one lane of one accumulator and adds its products in order of
// d, so its bits cannot depend on its neighbours. The panel stays in L1 while all query blocks pass by.

using S = AESG_SIMD;
constexpr int kPanel = 2 * S::kLanes;

// Rows [0, rows) of `from`, transposed; missing rows are zero.
AESG_TARGET static void pack_panel(const float* from, int64_t dim, int64_t rows, float* panel) {
  int64_t row = 0;
#if AESG_FAST_TRANSPOSE
  for (; row + 8 <= rows; row += 8) {
    int64_t d = 0;
    for (; d + 8 <= dim; d += 8) transpose_8x8(from + row * dim + d, dim, panel + d * kPanel + row, kPanel);
    for (; d < dim; ++d)
      for (int64_t r = row; r < row + 8; ++r) panel[d * kPanel + r] = from[r * dim + d];
  }
#endif
  for (; row < rows; ++row)
    for (int64_t d = 0; d < dim; ++d) panel[d * kPanel + row] = from[row * dim + d];
  for (; row < kPanel; ++row)
    for (int64_t d = 0; d < dim; ++d) panel[d * kPanel + row] = 0.0f;
}

// Inverse norms of a packed panel, with the arithmetic of seed_search_math.h.
AESG_TARGET static void panel_inverse_norms(const float* panel, int64_t dim, float* inverse) {
  double sum[kPanel] = {};
  for (int64_t d = 0; d < dim; ++d)
    for (int r = 0; r < kPanel; ++r) {
      const double x = panel[d * kPanel + r];
      sum[r] += x * x;
    }
  for (int r = 0; r < kPanel; ++r) inverse[r] = inverse_norm(sum[r]);
}

// Similarities of Q queries to the panel's rows; those above bar[q] go to best[q], whose new bar is written
// back. `scale` holds the rows' inverse norms, NaN for rows that must not be found: NaN is above nothing.
template <int Q>
AESG_TARGET static void visit_panel(const float* panel, const float* block, int64_t dim, const float* scale,
                                    int64_t first_row, float* bar, TopK* best) {
  S::Vec low[Q], high[Q];
#pragma GCC unroll 12
  for (int q = 0; q < Q; ++q) low[q] = high[q] = S::zero();
  for (int64_t d = 0; d < dim; ++d) {
    const S::Vec left = S::load(panel), right = S::load(panel + S::kLanes);
#pragma GCC unroll 12
    for (int q = 0; q < Q; ++q) {
      const S::Vec x = S::broadcast(block + q);
      low[q] = S::fma(x, left, low[q]);
      high[q] = S::fma(x, right, high[q]);
    }
    panel += kPanel;
    block += Q;
  }
  const S::Vec scale_low = S::load(scale), scale_high = S::load(scale + S::kLanes);
  uint32_t hits[Q], any = 0;
#pragma GCC unroll 12
  for (int q = 0; q < Q; ++q) {
    const S::Vec level = S::broadcast(bar + q);
    low[q] = S::mul(low[q], scale_low);
    high[q] = S::mul(high[q], scale_high);
    hits[q] = S::greater(low[q], level) | S::greater(high[q], level) << S::kLanes;
    any |= hits[q];
  }
  if (__builtin_expect(any == 0, 1)) return;  // nearly always: a bar rises quickly
  float scores[Q][kPanel];
#pragma GCC unroll 12
  for (int q = 0; q < Q; ++q) {
    S::store(scores[q], low[q]);
    S::store(scores[q] + S::kLanes, high[q]);
  }
  for (int q = 0; q < Q; ++q)
    for (uint32_t rest = hits[q]; rest != 0; rest &= rest - 1) {
      const int r = __builtin_ctz(rest);
      best[q].push({clamp_similarity(scores[q][r]), first_row + r});
      if (best[q].full()) bar[q] = std::max(bar[q], best[q].last().score);
    }
}

// visit_panel for a last block of `queries` < kQueryBlock.
template <int Q = S::kQueryBlock - 1>
AESG_TARGET static void visit_panel_rest(int64_t queries, const float* panel, const float* block, int64_t dim,
                                         const float* scale, int64_t first_row, float* bar, TopK* best) {
  if constexpr (Q > 0) {
    if (queries == Q) return visit_panel<Q>(panel, block, dim, scale, first_row, bar, best);
    return visit_panel_rest<Q - 1>(queries, panel, block, dim, scale, first_row, bar, best);
  }
}

AESG_TARGET static void search(const SeedSearch& job, const float* packed, int64_t first_query,
                               int64_t last_query, int64_t first_row, int64_t last_row, TopK* best,
                               float* panel, float* bars) {
  const int64_t dim = job.dim;
  alignas(64) float scale[kPanel];
  for (int64_t row = first_row; row < last_row; row += kPanel) {
    // Groups have 1024 rows, a multiple of kPanel: a panel never leaves its group.
    const int64_t rows = std::min<int64_t>(kPanel, last_row - row);
    pack_panel(job.vectors.at(row), dim, rows, panel);
    if (job.inv_norm) {
      std::copy_n(job.inv_norm.at(row), rows, scale);
    } else {
      panel_inverse_norms(panel, dim, scale);
    }
    std::fill(scale + rows, scale + kPanel, NAN);
    if (job.active) {
      const uint8_t* active = job.active.at(row);
      for (int64_t r = 0; r < rows; ++r) scale[r] = active[r] ? scale[r] : NAN;
    }
    int64_t q = first_query;
    for (; q + S::kQueryBlock <= last_query; q += S::kQueryBlock)
      visit_panel<S::kQueryBlock>(panel, packed + q * dim, dim, scale, row, bars + q, best + q);
    visit_panel_rest(last_query - q, panel, packed + q * dim, dim, scale, row, bars + q, best + q);
  }
}
