// region_search on the CPU: centres and rows are ranked by 8-bit codes, the best rows compared exactly.
#include "csrc/ops/cpu/region_search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "csrc/ops/cpu/seed_search.h"
#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/seed_search_math.h"

namespace aesg::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr size_t kSlack = 32;  // entries a reservoir takes beyond what it keeps, at least

// Rough scores [32] of a panel's rows; returns a bit for each that reaches the bar (none where the scale is
// NaN). `next` is brought into the cache meanwhile.
uint32_t scan_portable(Panel panel, const int32_t* query, int64_t quads, int32_t offset, float bar,
                       const uint8_t* next, float* scores) {
  (void)next;
  const uint8_t* codes = panel.codes();
  const float* scales = panel.scales();
  int32_t sums[kCellPanel] = {};
  for (int64_t q = 0; q < quads; ++q, codes += kCellPanel * kQuad) {
    int8_t x[kQuad];
    std::memcpy(x, query + q, kQuad);
    for (int64_t r = 0; r < kCellPanel; ++r)
      sums[r] +=
          x[0] * codes[4 * r] + x[1] * codes[4 * r + 1] + x[2] * codes[4 * r + 2] + x[3] * codes[4 * r + 3];
  }
  uint32_t hits = 0;
  for (int64_t r = 0; r < kCellPanel; ++r) {
    scores[r] = static_cast<float>(sums[r] - offset) * scales[r];
    hits |= static_cast<uint32_t>(scores[r] >= bar) << r;
  }
  return hits;
}

#if defined(__x86_64__)
AESG_AVX2 uint32_t scan_avx2(Panel panel, const int32_t* query, int64_t quads, int32_t offset, float bar,
                             const uint8_t* next, float* scores) {
  const uint8_t* codes = panel.codes();
  const float* scales = panel.scales();
  for (int64_t at = 0; at < 320; at += 64) __builtin_prefetch(next + at);
  next += 320;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
  for (int64_t q = 0; q < quads; ++q, codes += 128, next += 128) {
    __builtin_prefetch(next);
    __builtin_prefetch(next + 64);
    const __m256i x = _mm256_set1_epi32(query[q]);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32 * g));
      sum[g] = _mm256_add_epi32(sum[g], _mm256_madd_epi16(_mm256_maddubs_epi16(row, x), ones));
    }
  }
  const __m256i shift = _mm256_set1_epi32(offset);
  const __m256 level = _mm256_set1_ps(bar);
  uint32_t hits = 0;
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const __m256 score =
        _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(sum[g], shift)), _mm256_loadu_ps(scales + 8 * g));
    _mm256_storeu_ps(scores + 8 * g, score);
    hits |= static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(score, level, _CMP_GE_OQ))) << (8 * g);
  }
  return hits;
}
#endif

decltype(&scan_portable) scanner() {
#if defined(__x86_64__)
  static const auto chosen = pick_isa() == Isa::kPortable ? &scan_portable : &scan_avx2;
  return chosen;
#else
  return &scan_portable;
#endif
}

int64_t quads_of(int64_t dim) { return (dim + kQuad - 1) / kQuad; }

// The largest absolute value, through the order of its bits: the compiler may then take many at a time.
AESG_CLONES float largest(const float* values, int64_t n) {
  uint32_t most = 0;
  for (int64_t d = 0; d < n; ++d) {
    uint32_t bits;
    std::memcpy(&bits, values + d, 4);
    most = std::max(most, bits & 0x7fffffffu);
  }
  float value;
  std::memcpy(&value, &most, 4);
  return value;
}

// codes[d] = values[d] * factor to the nearest integer (ties to even) in -limit..limit. Their sum is
// returned.
AESG_CLONES int32_t round_all(const float* values, int64_t n, float factor, float limit, int8_t* codes) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it leaves no place for a fraction
  int32_t sum = 0;
  for (int64_t d = 0; d < n; ++d) {
    const float x = values[d] * factor, low = x < -limit ? -limit : x, held = low > limit ? limit : low;
    const auto code = static_cast<int32_t>((held + kShift) - kShift);
    codes[d] = static_cast<int8_t>(code);
    sum += code;
  }
  return sum;
}

}  // namespace

void Reservoir::reset(int64_t keep) {
  keep_ = static_cast<size_t>(keep);
  entries_.resize(keep_ + std::max(keep_, kSlack));
  size_ = 0;
  bar_ = kNothing;
}

void Reservoir::shrink() {
  const auto before = [](const Entry& a, const Entry& b) {
    return ranks_before(a.score, a.slot, b.score, b.slot);
  };
  std::nth_element(entries_.begin(), entries_.begin() + static_cast<int64_t>(keep_) - 1,
                   entries_.begin() + static_cast<int64_t>(size_), before);
  size_ = keep_;
  bar_ = entries_[keep_ - 1].score;
}

const Reservoir::Entry* Reservoir::finish() {
  if (size_ > keep_) shrink();
  return entries_.data();
}

float encode_row(const float* row, int64_t dim, int64_t lane, uint8_t* panel_codes) {
  const float step = largest(row, dim) / kCodeLimit, inverse = step > 0 ? 1.0f / step : 0.0f;
  static thread_local std::vector<int8_t> codes;
  codes.assign(static_cast<size_t>(quads_of(dim) * kQuad), 0);
  // Where the inverse of a tiny step is not finite, all codes are 0.
  round_all(row, dim, std::isfinite(inverse) ? inverse : 0.0f, kCodeLimit, codes.data());
  for (int64_t q = 0; q < quads_of(dim); ++q) {
    uint32_t four;
    std::memcpy(&four, codes.data() + q * kQuad, kQuad);
    four ^= 0x80808080u;  // adds kCodeZero to each
    std::memcpy(panel_codes + (q * kCellPanel + lane) * kQuad, &four, kQuad);
  }
  return step;
}

// The codes of query * scale. A common factor changes no order, so their step is dropped.
void RegionSearcher::encode_query(const float* query, float scale, int64_t dim) {
  unit_.resize(static_cast<size_t>(dim));
  for (int64_t d = 0; d < dim; ++d) unit_[d] = query[d] * scale;
  const float most = largest(unit_.data(), dim);
  quads_.assign(static_cast<size_t>(quads_of(dim)), 0);
  offset_ = kCodeZero * round_all(unit_.data(), dim, most > 0 ? kQueryLimit / most : 0.0f, kQueryLimit,
                                  reinterpret_cast<int8_t*>(quads_.data()));
}

int32_t RegionSearcher::nearest_cell(const Panels& centers, const float* row, float inverse_norm,
                                     int64_t dim) {
  encode_query(row, inverse_norm, dim);
  const auto scan = scanner();
  float scores[kCellPanel], best = kNothing;
  int32_t nearest = 0;
  for (int64_t p = 0; p < centers.count; ++p) {
    uint32_t hits = scan(centers[p], quads_.data(), quads_of(dim), offset_, best, centers[p].bytes, scores);
    for (; hits != 0; hits &= hits - 1) {
      const int r = __builtin_ctz(hits);
      if (!(scores[r] > best)) continue;
      best = scores[r];
      nearest = static_cast<int32_t>(p * kCellPanel + r);
    }
  }
  return nearest;
}

bool RegionSearcher::scan_cell(const RegionSearch& job, int32_t cell) {
  const auto scan = scanner();
  const Panels& panels = job.panels;
  float scores[kCellPanel];
  int64_t steps = panels.count;
  for (int32_t at = job.heads[cell], next; at != -1; at = next) {
    if (at < 0 || at >= panels.count || steps-- == 0) return false;
    const Panel panel = panels[at];
    next = panel.next();
    const Panel ahead = panels[next >= 0 && next < panels.count ? next : at];
    uint32_t hits = scan(panel, quads_.data(), quads_of(job.dim), offset_, rows_.bar(), ahead.bytes, scores);
    for (; hits != 0; hits &= hits - 1) {
      const int r = __builtin_ctz(hits);
      const int32_t slot = panel.slots()[r];
      if (slot < 0 || slot >= job.vectors.rows) return false;
      if (job.active && !job.active[slot]) continue;
      rows_.push(scores[r], slot);
    }
  }
  return true;
}

// Offers rows with their exact similarity.
void RegionSearcher::compare(const RegionSearch& job, const int64_t* slots, size_t n) {
  constexpr size_t kTogether = 8;
  const float* rows[kTogether];
  float dots[kTogether];
  for (size_t first = 0; first < n; first += kTogether) {
    const size_t many = std::min(kTogether, n - first);
    for (size_t i = 0; i < kTogether; ++i) rows[i] = job.vectors.at(slots[first + std::min(i, many - 1)]);
    seed_search_eight_dots(unit_.data(), rows, job.dim, dots);
    for (size_t i = 0; i < many; ++i) {
      const float score = dots[i] * job.inv_norm[slots[first + i]];
      if (score >= job.min_score) best_.push({clamp_similarity(score), slots[first + i]});
    }
  }
}

bool RegionSearcher::run(const RegionSearch& job, int64_t b, float* scores, int64_t* slots) {
  const float* query = job.queries + b * job.dim;
  encode_query(query, query_scale(query, job.dim), job.dim);
  best_.reset(std::min(job.k, job.vectors.rows));

  const int64_t probes = std::min(job.probes, job.cells);
  if (probes > 0) {
    const auto scan = scanner();
    cells_.reset(probes);
    float rough[kCellPanel];
    for (int64_t p = 0; p < job.centers.count; ++p) {
      const Panel panel = job.centers[p], ahead = job.centers[std::min(p + 1, job.centers.count - 1)];
      uint32_t hits =
          scan(panel, quads_.data(), quads_of(job.dim), offset_, cells_.bar(), ahead.bytes, rough);
      for (; hits != 0; hits &= hits - 1) {
        const int r = __builtin_ctz(hits);
        cells_.push(rough[r], static_cast<int32_t>(p * kCellPanel + r));
      }
    }
    const Reservoir::Entry* cells = cells_.finish();
    rows_.reset(job.pool);
    for (size_t i = 0; i < cells_.size(); ++i)
      if (cells[i].slot >= job.cells || !scan_cell(job, cells[i].slot)) return false;
    const Reservoir::Entry* rows = rows_.finish();
    chosen_.resize(rows_.size());
    for (size_t i = 0; i < rows_.size(); ++i) {
      chosen_[i] = rows[i].slot;
      const char* row = reinterpret_cast<const char*>(job.vectors.at(rows[i].slot));
      __builtin_prefetch(job.inv_norm.at(rows[i].slot));
      for (int64_t at = 0; at < std::min<int64_t>(4 * job.dim, 512); at += 64) __builtin_prefetch(row + at);
    }
    compare(job, chosen_.data(), chosen_.size());
  }

  chosen_.clear();
  for (int64_t i = 0; i < job.pending_count; ++i) {
    if (job.pending[i] < 0 || job.pending[i] >= job.vectors.rows) return false;
    if (!job.active || job.active[job.pending[i]]) chosen_.push_back(job.pending[i]);
  }
  compare(job, chosen_.data(), chosen_.size());

  const std::vector<Scored>& found = best_.sorted();
  for (int64_t i = 0; i < job.k; ++i) {
    const bool there = i < static_cast<int64_t>(found.size());
    scores[i] = there ? found[i].score : 0.0f;
    slots[i] = there ? found[i].slot : -1;
  }
  return true;
}

}  // namespace aesg::cpu
