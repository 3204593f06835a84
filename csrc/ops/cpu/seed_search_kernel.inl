// Body of the seed_search kernel for one instruction set; see simd.h. Included by seed_search.cpp only.
//
// A panel holds 2 * kLanes rows transposed: panel[d][row]. A query block holds up to kQueryBlock queries as
// block[d][query]. Every (query, row) pair owns one lane of one accumulator and adds its products in order of
// d, so its bits cannot depend on its neighbours. The panel stays in L1 while all query blocks pass by.

using S = AESG_SIMD;
constexpr int kPanel = 2 * S::kLanes;

// The sum of one pair alone, for callers that need few.
AESG_TARGET static float dot(const float* a, const float* b, int64_t dim) {
  float sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum = S::fma(a[d], b[d], sum);
  return sum;
}

AESG_TARGET static void eight_dots(const float* query, const float* const* rows, int64_t dim, float* dots) {
  float sum[8] = {};
  for (int64_t d = 0; d < dim; ++d) {
#pragma GCC unroll 8
    for (int r = 0; r < 8; ++r) sum[r] = S::fma(query[d], rows[r][d], sum[r]);
  }
  std::copy_n(sum, 8, dots);
}

// Rows [0, rows) of `from`, transposed; missing rows are zero.
AESG_TARGET static void pack_panel(const float* from, int64_t dim, int64_t rows, float* panel) {
  int64_t row = 0;
#if AESG_FAST_TRANSPOSE
  for (; row + 8 <= rows; row += 8) {
    int64_t d = 0;
    for (; d + 4 <= dim; d += 4) {
      __m256 column[4];
      transpose_8x4(from + row * dim + d, dim, column);
      for (int i = 0; i < 4; ++i) _mm256_storeu_ps(panel + (d + i) * kPanel + row, column[i]);
    }
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

// Pushes those of `vectors` x kLanes similarities that are above the bar, and raises it.
template <int Vectors>
AESG_TARGET static void offer(const float* scores, int64_t first_row, float* bar, TopK* best) {
  for (int v = 0; v < Vectors; ++v) {
    uint32_t hits = S::bits(S::greater(S::load(scores + v * S::kLanes), S::broadcast(bar)));
    for (; hits != 0; hits &= hits - 1) {
      const int r = v * S::kLanes + __builtin_ctz(hits);
      best->push({clamp_similarity(scores[r]), first_row + r});
      if (best->full()) *bar = std::max(*bar, best->last().score);
    }
  }
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
  S::Mask any{};
#pragma GCC unroll 12
  for (int q = 0; q < Q; ++q) {
    const S::Vec level = S::broadcast(bar + q);
    low[q] = S::mul(low[q], scale_low);
    high[q] = S::mul(high[q], scale_high);
    any = S::either(any, S::either(S::greater(low[q], level), S::greater(high[q], level)));
  }
  if (__builtin_expect(S::bits(any) == 0, 1)) return;  // nearly always: a bar rises quickly
  float scores[Q][kPanel];
#pragma GCC unroll 12
  for (int q = 0; q < Q; ++q) {
    S::store(scores[q], low[q]);
    S::store(scores[q] + S::kLanes, high[q]);
  }
  for (int q = 0; q < Q; ++q) offer<2>(scores[q], first_row, bar + q, best + q);
}

// visit_panel for a block of `queries` <= kQueryBlock.
template <int Q = S::kQueryBlock>
AESG_TARGET static void visit_panel_any(int64_t queries, const float* panel, const float* block, int64_t dim,
                                        const float* scale, int64_t first_row, float* bar, TopK* best) {
  if constexpr (Q > 0) {
    if (queries == Q) return visit_panel<Q>(panel, block, dim, scale, first_row, bar, best);
    return visit_panel_any<Q - 1>(queries, panel, block, dim, scale, first_row, bar, best);
  }
}

// scale[r] for rows [0, rows) from `row` on; NaN for the rest up to `width` and for inactive rows.
AESG_TARGET static void load_scale(const SeedSearch& job, int64_t row, int64_t rows, int64_t width,
                                   float* scale) {
  if (job.inv_norm) std::copy_n(job.inv_norm.at(row), rows, scale);
  std::fill(scale + rows, scale + width, NAN);
  if (!job.active) return;
  const uint8_t* active = job.active.at(row);
  for (int64_t r = 0; r < rows; ++r) scale[r] = active[r] ? scale[r] : NAN;
}

AESG_TARGET static void search(const SeedSearch& job, const float* packed, int64_t first_query,
                               int64_t last_query, int64_t first_row, int64_t last_row, TopK* best,
                               float* panel, float* bars) {
  const int64_t dim = job.dim, total = last_query - first_query;
  const int64_t blocks = (total + S::kQueryBlock - 1) / S::kQueryBlock;
  const int64_t panel_lines = (kPanel * dim * 4 + 63) / 64, lines_each = (panel_lines + blocks - 1) / blocks;
  alignas(64) float scale[kPanel];
  for (int64_t row = first_row; row < last_row; row += kPanel) {
    // Groups have 1024 rows, a multiple of kPanel: a panel never leaves its group.
    const int64_t rows = std::min<int64_t>(kPanel, last_row - row);
    pack_panel(job.vectors.at(row), dim, rows, panel);
    if (!job.inv_norm) panel_inverse_norms(panel, dim, scale);
    load_scale(job, row, rows, kPanel, scale);
    // The next panel comes in while this one is worked on.
    const char* next = reinterpret_cast<const char*>(job.vectors.at(std::min(row + kPanel, last_row - 1)));
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t line = b * lines_each; line < (b + 1) * lines_each; ++line)
        __builtin_prefetch(next + 64 * line, 0, 2);
      const int64_t q = first_query + block_start(b, blocks, total), last = block_start(b + 1, blocks, total);
      visit_panel_any(first_query + last - q, panel, packed + q * dim, dim, scale, row, bars + q, best + q);
    }
  }
}
