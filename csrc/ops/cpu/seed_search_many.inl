// Body of seed_search for many queries, where the sums are the work; AVX2. Included by seed_search.cpp only,
// behind seed_search_kernel.inl.
//
// Queries and rows, both at length kUnit, are rounded to 16-bit integers, of which one instruction multiplies
// and adds sixteen pairs where it takes eight of floats. Their sums only sift: a pair that comes within a
// margin of the bar is summed again in the promised order, and that sum decides. The sieve's error cannot
// exceed the margin, so nothing is lost.
//
// Codes are laid out as the floats are, two dimensions side by side: panel[d / 2][row], block[d / 2][query].

constexpr float kUnit = 32760.0f;  // what 1 is in codes; below 2^15, as lengths are rounded too
constexpr int kTogether = 8;       // (query, row) pairs that are summed in order side by side
constexpr int kManyHits = 12;      // of a block in a panel: from so many on all its pairs are summed in order

// Let y = c v be a row v before it is rounded, |y| <= 1.0001 kUnit, and y + e its code, |e| <= sqrt(D) / 2;
// kUnit q + f likewise of a query. The sum over both codes is then off by at most
//   |kUnit q e + f y + f e| <= kUnit sqrt(D) + D / 4,
// here with 1 % more for what y itself is off by. Times inv_norm / (c kUnit) it is a similarity.
inline float code_error(int64_t dim) {
  const float d = static_cast<float>(dim);
  return 1.01f * kUnit * std::sqrt(d) + 0.25f * d;
}
// The promised sum's own error is D 2^-24 |v| inv_norm, the same again for products below the normal range;
// here with as much again, and more, for converting the sieve's.
inline float order_error(int64_t dim) { return static_cast<float>(dim + 8) * 0x1p-21f; }

// What turns sums over codes of a panel's rows to similarities, and how far these may be off. Rows that must
// not be found have NaN, which is above nothing; those that have no codes have an infinite margin.
struct alignas(64) Sieve {
  float back[kPanel], margin[kPanel];
};

// c times two dimensions of eight rows as codes; adds to |c v|^2.
AESG_AVX2 static AESG_INLINE __m256 write_pair(__m256 even, __m256 odd, __m256 c, __m256 squares,
                                               int32_t* to) {
  even = _mm256_mul_ps(even, c);
  odd = _mm256_mul_ps(odd, c);
  const __m256i low = _mm256_and_si256(_mm256_cvtps_epi32(even), _mm256_set1_epi32(0xffff));
  const __m256i high = _mm256_slli_epi32(_mm256_cvtps_epi32(odd), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_or_si256(low, high));
  return _mm256_fmadd_ps(odd, odd, _mm256_fmadd_ps(even, even, squares));
}

// Codes of eight rows times c to codes[d / 2 * kPanel]; returns |c v| of each.
AESG_AVX2 static __m256 write_codes(const float* from, int64_t dim, __m256 c, int32_t* codes) {
  __m256 squares = _mm256_setzero_ps();
  int64_t d = 0;
  for (; d + 4 <= dim; d += 4) {
    __m256 column[4];
    transpose_8x4(from + d, dim, column);
    squares = write_pair(column[0], column[1], c, squares, codes + d / 2 * kPanel);
    squares = write_pair(column[2], column[3], c, squares, codes + (d / 2 + 1) * kPanel);
  }
  for (; d < dim; d += 2) {
    alignas(32) float column[2][8] = {};
    for (int64_t i = d; i < std::min(d + 2, dim); ++i)
      for (int64_t r = 0; r < 8; ++r) column[i - d][r] = from[r * dim + i];
    squares =
        write_pair(_mm256_load_ps(column[0]), _mm256_load_ps(column[1]), c, squares, codes + d / 2 * kPanel);
  }
  return _mm256_sqrt_ps(squares);
}

// Codes of kPanel rows. Inverse norms bring nearly all to length kUnit; a row that they do not (likeness may
// leave a part of every vector out) is scaled by its own length.
AESG_AVX2 static void pack_codes(const float* from, int64_t dim, const float* scale, int32_t* codes,
                                 Sieve* sieve) {
  const __m256 unit = _mm256_set1_ps(kUnit), most = _mm256_set1_ps(1.0001f * kUnit);
  const __m256 error = _mm256_set1_ps(code_error(dim)), order = _mm256_set1_ps(order_error(dim) * kUnit);
  for (int first = 0; first < kPanel; first += 8) {
    const float* rows = from + first * dim;
    const __m256 inverse = _mm256_load_ps(scale + first);
    __m256 c = _mm256_mul_ps(unit, inverse), back = _mm256_set1_ps(1.0f / (kUnit * kUnit));
    __m256 length = write_codes(rows, dim, c, codes + first);
    __m256 off = _mm256_cmp_ps(length, most, _CMP_NLE_UQ);
    // A row with NaN for its inverse norm needs no codes.
    const __m256 found = _mm256_cmp_ps(inverse, inverse, _CMP_ORD_Q);
    if (__builtin_expect(_mm256_movemask_ps(_mm256_and_ps(off, found)) != 0, 0)) {
      const __m256 shrink = _mm256_blendv_ps(_mm256_set1_ps(1.0f), _mm256_div_ps(unit, length), off);
      c = _mm256_mul_ps(c, shrink);
      back = _mm256_div_ps(back, shrink);
      length = write_codes(rows, dim, c, codes + first);
      off = _mm256_or_ps(_mm256_cmp_ps(length, most, _CMP_NLE_UQ),
                         _mm256_cmp_ps(back, _mm256_set1_ps(std::numeric_limits<float>::max()), _CMP_NLE_UQ));
    }
    // The promised sum of a row so long may overflow, however near 1 the inverse norm brings it.
    const __m256 longest =
        _mm256_mul_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), c), _mm256_set1_ps(0x1p126f));
    off = _mm256_or_ps(off, _mm256_cmp_ps(length, longest, _CMP_GT_OQ));
    __m256 margin = _mm256_mul_ps(back, _mm256_fmadd_ps(order, length, error));
    margin = _mm256_blendv_ps(margin, _mm256_set1_ps(INFINITY), off);
    back = _mm256_blendv_ps(back, _mm256_setzero_ps(), off);
    _mm256_store_ps(sieve->margin + first, _mm256_blendv_ps(inverse, margin, found));
    _mm256_store_ps(sieve->back + first, back);
  }
}

// Bit r of hits[q]: row r of the panel may be above bar[q]. Returns how many bits are set. Not inlined, and
// its sums kept in their order: otherwise GCC 12 keeps half of them in memory, which takes twice as long.
template <int Q>
__attribute__((noinline)) AESG_AVX2 static int sift_panel(const int32_t* codes, const int32_t* block,
                                                          int64_t pairs, const Sieve& sieve, const float* bar,
                                                          uint32_t* hits) {
  __m256i low[Q], high[Q];
#pragma GCC unroll 6
  for (int q = 0; q < Q; ++q) low[q] = high[q] = _mm256_setzero_si256();
  for (int64_t d = 0; d < pairs; ++d) {
    const __m256i left = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    const __m256i right = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 8));
#pragma GCC unroll 6
    for (int q = 0; q < Q; ++q) {
      const __m256i x = _mm256_set1_epi32(block[q]);
      low[q] = _mm256_add_epi32(low[q], _mm256_madd_epi16(x, left));
      high[q] = _mm256_add_epi32(high[q], _mm256_madd_epi16(x, right));
      asm("" : "+x"(low[q]), "+x"(high[q]));
    }
    codes += kPanel;
    block += Q;
  }
  const __m256 back_low = _mm256_load_ps(sieve.back), back_high = _mm256_load_ps(sieve.back + 8);
  const __m256 margin_low = _mm256_load_ps(sieve.margin), margin_high = _mm256_load_ps(sieve.margin + 8);
  __m256 over_low[Q], over_high[Q], any = _mm256_setzero_ps();
#pragma GCC unroll 6
  for (int q = 0; q < Q; ++q) {
    const __m256 level = _mm256_broadcast_ss(bar + q);
    const __m256 most_low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low[q]), back_low, margin_low);
    const __m256 most_high = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high[q]), back_high, margin_high);
    over_low[q] = _mm256_cmp_ps(most_low, level, _CMP_GT_OQ);
    over_high[q] = _mm256_cmp_ps(most_high, level, _CMP_GT_OQ);
    any = _mm256_or_ps(any, _mm256_or_ps(over_low[q], over_high[q]));
  }
  if (__builtin_expect(_mm256_movemask_ps(any) == 0, 1)) return 0;  // nearly always: a bar rises quickly
  int count = 0;
#pragma GCC unroll 6
  for (int q = 0; q < Q; ++q) {
    hits[q] = static_cast<uint32_t>(_mm256_movemask_ps(over_low[q]) | _mm256_movemask_ps(over_high[q]) << 8);
    count += __builtin_popcount(hits[q]);
  }
  return count;
}

// sift_panel for a block of `queries` <= kQueryBlock.
template <int Q = S::kQueryBlock>
AESG_AVX2 static int sift_panel_any(int64_t queries, const int32_t* codes, const int32_t* block,
                                    int64_t pairs, const Sieve& sieve, const float* bar, uint32_t* hits) {
  if constexpr (Q > 0) {
    if (queries == Q) return sift_panel<Q>(codes, block, pairs, sieve, bar, hits);
    return sift_panel_any<Q - 1>(queries, codes, block, pairs, sieve, bar, hits);
  }
  return 0;
}

// Pairs that may be above the bar, until there are enough to sum them side by side.
struct Waiting {
  int64_t query[kTogether], row[kTogether];
  int count = 0;
};

// Sums the pairs that wait in the promised order and offers them. Rows behind them may have been offered
// before, so one that equals the last of a full list (clamped, as that is) is offered too: the lower slot
// ranks first.
AESG_AVX2 static void offer_waiting(const SeedSearch& job, const float* units, Waiting* waiting, float* bars,
                                    TopK* best) {
  const float* query[kTogether];
  const float* row[kTogether];
  for (int i = 0; i < kTogether; ++i) {
    const int pair = std::min(i, waiting->count - 1);
    query[i] = units + waiting->query[pair] * job.dim;
    row[i] = job.vectors.at(waiting->row[pair]);
  }
  float sum[kTogether] = {};
  for (int64_t d = 0; d < job.dim; ++d) {
#pragma GCC unroll 8
    for (int i = 0; i < kTogether; ++i) sum[i] = S::fma(query[i][d], row[i][d], sum[i]);
  }
  for (int i = 0; i < waiting->count; ++i) {
    const int64_t q = waiting->query[i], slot = waiting->row[i];
    const float score = sum[i] * *job.inv_norm.at(slot), clamped = clamp_similarity(score);
    const bool ties = clamped == bars[q] && score > -INFINITY && best[q].full();
    if (!(score > bars[q] || ties)) continue;
    best[q].push({clamped, slot});
    if (best[q].full()) bars[q] = std::max(bars[q], best[q].last().score);
  }
  waiting->count = 0;
}

// As `search`, with the same bits. REQUIRES: inverse norms.
AESG_AVX2 static void search_many(const SeedSearch& job, const float* packed, int64_t first_query,
                                  int64_t last_query, int64_t first_row, int64_t last_row, TopK* best,
                                  float* panel, float* bars) {
  const int64_t dim = job.dim, pairs = (dim + 1) / 2, total = last_query - first_query;
  const int64_t blocks = (total + S::kQueryBlock - 1) / S::kQueryBlock;
  const int64_t panel_lines = (kPanel * dim * 4 + 63) / 64, lines_each = (panel_lines + blocks - 1) / blocks;
  static thread_local std::vector<int32_t> scratch;
  static thread_local std::vector<float> units;  // the queries one below the other
  scratch.resize(std::max(scratch.size(), static_cast<size_t>((kPanel + total) * pairs + 16)));
  units.resize(std::max(units.size(), static_cast<size_t>(total * dim)));
  int32_t* codes = reinterpret_cast<int32_t*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  int32_t* query_codes = codes + kPanel * pairs;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = block_start(b, blocks, total), width = block_start(b + 1, blocks, total) - begin;
    const float* block = packed + (first_query + begin) * dim;
    for (int64_t q = 0; q < width; ++q)
      for (int64_t p = 0; p < pairs; ++p) {
        uint32_t pair = 0;
        for (int64_t d = 2 * p; d < std::min(2 * p + 2, dim); ++d) {
          units[(begin + q) * dim + d] = block[d * width + q];
          pair |= (static_cast<uint32_t>(std::lrintf(block[d * width + q] * kUnit)) & 0xffff) << d % 2 * 16;
        }
        query_codes[begin * pairs + p * width + q] = static_cast<int32_t>(pair);
      }
  }
  // Indexed by the query's place in the chunk.
  best += first_query;
  bars += first_query;
  packed += first_query * dim;

  alignas(64) float scale[kPanel];
  Sieve sieve;
  Waiting waiting;
  for (int64_t row = first_row; row < last_row; row += kPanel) {
    const int64_t rows = std::min<int64_t>(kPanel, last_row - row);
    const float* from = job.vectors.at(row);
    load_scale(job, row, rows, kPanel, scale);
    const bool whole = rows == kPanel;
    if (whole) pack_codes(from, dim, scale, codes, &sieve);
    bool in_floats = false;
    // The next panel comes in while this one is worked on.
    const char* next = reinterpret_cast<const char*>(job.vectors.at(std::min(row + kPanel, last_row - 1)));
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t line = b * lines_each; line < (b + 1) * lines_each; ++line)
        __builtin_prefetch(next + 64 * line, 0, 2);
      const int64_t q = block_start(b, blocks, total), width = block_start(b + 1, blocks, total) - q;
      uint32_t hits[S::kQueryBlock];
      const int count =
          whole ? sift_panel_any(width, codes, query_codes + q * pairs, pairs, sieve, bars + q, hits)
                : kManyHits;
      if (count == 0) continue;
      if (count >= kManyHits) {
        if (!in_floats) pack_panel(from, dim, rows, panel);
        in_floats = true;
        visit_panel_any(width, panel, packed + q * dim, dim, scale, row, bars + q, best + q);
        continue;
      }
      for (int64_t i = 0; i < width; ++i)
        for (uint32_t left = hits[i]; left != 0; left &= left - 1) {
          waiting.query[waiting.count] = q + i;
          waiting.row[waiting.count] = row + __builtin_ctz(left);
          if (++waiting.count == kTogether) offer_waiting(job, units.data(), &waiting, bars, best);
        }
    }
  }
  if (waiting.count != 0) offer_waiting(job, units.data(), &waiting, bars, best);
}
