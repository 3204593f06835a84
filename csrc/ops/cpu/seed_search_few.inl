// Body of seed_search for few queries, where reading the rows is the work; AVX2. Included by seed_search.cpp
// only, behind seed_search_kernel.inl.
//
// Four streams of rows, some pages apart, are read side by side, each in the order of its addresses: the
// hardware then fetches ahead in all four, and each load of the query serves four rows. Sums made so are in
// another order than the one promised (eight lanes, then across), so they only sift: eight rows with one that
// comes within a margin of the bar are summed again in order, and that sum decides. The sieve's error cannot
// exceed the margin, so nothing is lost.

constexpr int kStreams = 4, kTile = 8;
constexpr int64_t kMostApart = 256;     // rows from stream to stream, at most
constexpr int64_t kApartFloats = 4096;  // and the distance that is aimed at, 16 KiB

// Two sums of D products of a unit query and a row differ by at most 2 D 2^-24 |row| (each order is off by at
// most D roundings), times the inverse norm, which may be that of a part of the row: this times
// 1 + |row| |inv_norm|. As much again is for products below the normal range, and twice that for the
// roundings of the margin itself.
inline float sieve_margin(int64_t dim) { return static_cast<float>(dim) * 0x1p-21f; }
// What |row|^2 may lack because squares were below the normal range.
inline float lost_squares(int64_t dim) { return static_cast<float>(dim) * 0x1p-125f; }

AESG_AVX2 static AESG_INLINE float sum_across(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// Rough dot products of Q queries, `pitch` apart and padded with zeros to whole vectors, and Rows rows, each
// in `Chains` sums: to scores[q * score_pitch + j * apart]. `tail` selects what is left of a row in its last
// vector. Squares of the rows' lengths, where they are wanted: to squares[j * apart].
template <int Q, int Rows, int Chains, bool Lengths>
AESG_AVX2 static AESG_INLINE void rough_dots(const float* const* rows, int64_t dim, const float* queries,
                                             int64_t pitch, __m256i tail, float* scores, int64_t apart,
                                             int64_t score_pitch, float* squares) {
  __m256 sum[Q][Rows][Chains], square[Rows];
#pragma GCC unroll 8
  for (int j = 0; j < Rows; ++j) square[j] = _mm256_setzero_ps();
#pragma GCC unroll 16
  for (int i = 0; i < Q * Rows * Chains; ++i) (&sum[0][0][0])[i] = _mm256_setzero_ps();
  int64_t d = 0;
  for (; d + 8 * Chains <= dim; d += 8 * Chains) {
#pragma GCC unroll 8
    for (int c = 0; c < Chains; ++c) {
      __m256 x[Q];
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q) x[q] = _mm256_loadu_ps(queries + q * pitch + d + 8 * c);
#pragma GCC unroll 8
      for (int j = 0; j < Rows; ++j) {
        const __m256 row = _mm256_loadu_ps(rows[j] + d + 8 * c);
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q) sum[q][j][c] = _mm256_fmadd_ps(x[q], row, sum[q][j][c]);
        if (Lengths) square[j] = _mm256_fmadd_ps(row, row, square[j]);
      }
    }
  }
  for (; d < dim; d += 8) {
    const __m256i wanted = d + 8 <= dim ? _mm256_set1_epi32(-1) : tail;
#pragma GCC unroll 8
    for (int j = 0; j < Rows; ++j) {
      const __m256 row = _mm256_maskload_ps(rows[j] + d, wanted);
#pragma GCC unroll 8
      for (int q = 0; q < Q; ++q)
        sum[q][j][0] = _mm256_fmadd_ps(_mm256_loadu_ps(queries + q * pitch + d), row, sum[q][j][0]);
      if (Lengths) square[j] = _mm256_fmadd_ps(row, row, square[j]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < Rows; ++j)
    if (Lengths) squares[j * apart] = sum_across(square[j]);
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 8
    for (int j = 0; j < Rows; ++j) {
      __m256 total = sum[q][j][0];
#pragma GCC unroll 8
      for (int c = 1; c < Chains; ++c) total = _mm256_add_ps(total, sum[q][j][c]);
      scores[q * score_pitch + j * apart] = sum_across(total);
    }
}

// Offers those of `rows` <= 8 rows from `row` on that are above the bar, by their sums in order.
AESG_AVX2 static void offer_exactly(const SeedSearch& job, const float* query, int64_t row, int64_t rows,
                                    float* bar, TopK* best) {
  const float* places[kTile];
  for (int64_t r = 0; r < kTile; ++r) places[r] = job.vectors.at(row + std::min(r, rows - 1));
  alignas(64) float scale[kTile], scores[kTile];
  load_scale(job, row, rows, kTile, scale);
  eight_dots(query, places, job.dim, scores);
  _mm256_store_ps(scores, _mm256_mul_ps(_mm256_load_ps(scores), _mm256_load_ps(scale)));
  offer<kTile / S::kLanes>(scores, row, bar, best);
}

// All rows, for `groups` times Q queries; those from job.batch on only fill the last group.
template <int Q, int Chains>
AESG_AVX2 static void sift(const SeedSearch& job, int64_t groups, const float* queries, int64_t pitch,
                           int64_t first_row, int64_t last_row, TopK* best, float* bars) {
  constexpr int64_t kScores = kStreams * kMostApart;
  alignas(64) float scores[kFewQueries * kScores], squares[kScores];
  const __m256 one_margin = _mm256_set1_ps(sieve_margin(job.dim)),
               lost = _mm256_set1_ps(lost_squares(job.dim));
  const __m256i tail = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(job.dim % 8)),
                                          _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  int64_t row = first_row;
  while (row + kStreams * kTile <= last_row) {
    // A power of two, so that no stream leaves its group.
    int64_t apart = kMostApart;
    while (apart > kTile &&
           (apart * job.dim > kApartFloats || row % apart != 0 || row + kStreams * apart > last_row))
      apart /= 2;
    const float* rows[kStreams];
    for (int j = 0; j < kStreams; ++j) rows[j] = job.vectors.at(row + j * apart);
    for (int64_t r = 0; r < apart; ++r) {
      rough_dots<Q, kStreams, Chains, true>(rows, job.dim, queries, pitch, tail, scores + r, apart, kScores,
                                            squares + r);
      for (int64_t q = Q; q < groups * Q; q += Q)
        rough_dots<Q, kStreams, Chains, false>(rows, job.dim, queries + q * pitch, pitch, tail,
                                               scores + q * kScores + r, apart, kScores, nullptr);
      for (int j = 0; j < kStreams; ++j) rows[j] += job.dim;
    }
    for (int64_t r = 0; r < kStreams * apart; r += kTile) {
      const __m256 scale = _mm256_loadu_ps(job.inv_norm.at(row + r));
      const __m256 length = _mm256_sqrt_ps(_mm256_add_ps(_mm256_load_ps(squares + r), lost));
      const __m256 scaled = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_mul_ps(length, scale));
      const __m256 margin = _mm256_fmadd_ps(one_margin, scaled, one_margin);
      for (int64_t q = 0; q < job.batch; ++q) {
        const __m256 most = _mm256_fmadd_ps(_mm256_load_ps(scores + q * kScores + r), scale, margin);
        // Not at or below the bar, NaN included: the sum in order may be another.
        const __m256 high = _mm256_cmp_ps(most, _mm256_broadcast_ss(bars + q), _CMP_NLE_UQ);
        if (__builtin_expect(_mm256_movemask_ps(high) != 0, 0))
          offer_exactly(job, queries + q * pitch, row + r, kTile, bars + q, best + q);
      }
    }
    row += kStreams * apart;
  }
  for (; row < last_row; row += kTile)
    for (int64_t q = 0; q < job.batch; ++q)
      offer_exactly(job, queries + q * pitch, row, std::min<int64_t>(kTile, last_row - row), bars + q,
                    best + q);
}

// Up to kFewQueries queries, one below the other with `pitch` floats each and zeros up to kFewQueries.
// REQUIRES: inverse norms.
AESG_AVX2 static void search_few(const SeedSearch& job, const float* queries, int64_t pitch,
                                 int64_t first_row, int64_t last_row, TopK* best, float* bars) {
  const int64_t batch = job.batch;
  if (batch == 1) return sift<1, 2>(job, 1, queries, pitch, first_row, last_row, best, bars);
  const int64_t pairs = (batch + 1) / 2, threes = (batch + 2) / 3;
  if (2 * pairs < 3 * threes) return sift<2, 1>(job, pairs, queries, pitch, first_row, last_row, best, bars);
  return sift<3, 1>(job, threes, queries, pitch, first_row, last_row, best, bars);
}
