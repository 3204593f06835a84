#include "csrc/ops/cpu/spread_give.h"

#include <cstring>

#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/spread_activation_math.h"

namespace aesg::cpu {
namespace {

using Four = Portable;

int32_t edges_of(const EdgePiece& piece) { return piece.edge & kInBlocks ? 7 : 8; }

// Edge by edge, each with the factor of its target. Stores have no branches: what is not carried is written
// over.
size_t give_regions(const EdgePiece* pieces, size_t count, const GiveRules& how, const Gifts& out,
                    bool* damaged) {
  const SpreadRules& rules = *how.rules;
  size_t size = 0;
  for (const EdgePiece* piece = pieces; piece != pieces + count; ++piece) {
    for (int32_t i = 0; i < edges_of(*piece); ++i) {
      const int32_t target = piece->targets[i];
      if (static_cast<uint32_t>(target) >= static_cast<uint32_t>(how.slots)) {
        *damaged |= target != -1;
        continue;
      }
      const float factor = how.regions[target] == how.region ? rules.facilitation : 1.0f;
      const auto gives = [&](float energy) {
        return fixed_transfer(transfer(energy, piece->strengths[i], rules.decay, factor),
                              rules.transfer_floor);
      };
      const int32_t given = gives(piece->now);
      out.targets[size] = target;
      out.amounts[size] = piece->before > 0.0f ? given - gives(piece->before) : given;
      out.firings[size] = piece->firing;
      out.edges[size] = piece->edge + static_cast<uint32_t>(i);
      size += given > 0;
    }
  }
  return size;
}

AESG_INLINE Four::Mask give_four(const float* strengths, float energy, const SpreadRules& rules) {
  const Four::Vec x =
      Four::mul(Four::mul(Four::splat(energy), Four::load(strengths)), Four::splat(rules.decay));
  const Four::Vec limited = Four::min(x, Four::splat(kLargestTransfer));
  return Four::nearest(Four::mul(limited, Four::splat(kFixedOne))) &
         Four::greater(x, Four::splat(rules.transfer_floor));
}

size_t give_portable(const EdgePiece* pieces, size_t count, const GiveRules& how, const Gifts& out,
                     bool* damaged) {
  const int32_t slots = how.slots;
  size_t size = 0;
  for (const EdgePiece* piece = pieces; piece != pieces + count; ++piece) {
    // The second four of a block's seven begin with the last of the first.
    const int32_t second = edges_of(*piece) - 4;
    for (int32_t half = 0; half < 2; ++half) {
      const int32_t first = half * second;
      Four::Mask target;
      std::memcpy(&target, piece->targets + first, sizeof target);
      Four::Mask used = (target >= 0) & (target < slots);
      *damaged |= Four::bits(~used & (target != -1)) != 0;
      if (half == 1 && second == 3) used[0] = 0;
      const Four::Mask given = give_four(piece->strengths + first, piece->now, *how.rules);
      const uint32_t carried = Four::bits((given > 0) & used);
      if (carried == 0) continue;
      Four::Mask amount = given;
      if (piece->before > 0.0f) amount -= give_four(piece->strengths + first, piece->before, *how.rules);
      for (uint32_t i = 0; i < 4; ++i) {
        out.targets[size] = target[i];
        out.amounts[size] = amount[i];
        out.firings[size] = piece->firing;
        out.edges[size] = piece->edge + static_cast<uint32_t>(first) + i;
        size += carried >> i & 1;
      }
    }
  }
  return size;
}

#if defined(__x86_64__)
// For every set of lanes their numbers, in order, a byte each.
struct Compressions {
  uint64_t lanes[256];
  constexpr Compressions() : lanes() {
    for (int set = 0; set < 256; ++set)
      for (int lane = 0, place = 0; lane < 8; ++lane)
        if (set >> lane & 1) lanes[set] |= static_cast<uint64_t>(lane) << (8 * place++);
  }
};
constexpr Compressions kCompressions;

struct Rules8 {
  __m256 decay, floor;
};

AESG_INLINE AESG_AVX2 __m256i give_eight(__m256 strengths, float energy, const Rules8& rules) {
  const __m256 x = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(energy), strengths), rules.decay);
  // NaN is carried by neither comparison.
  const __m256 limited = _mm256_min_ps(x, _mm256_set1_ps(kLargestTransfer));
  const __m256i fixed = _mm256_cvtps_epi32(_mm256_mul_ps(limited, _mm256_set1_ps(kFixedOne)));
  return _mm256_and_si256(fixed, _mm256_castps_si256(_mm256_cmp_ps(x, rules.floor, _CMP_GT_OQ)));
}

AESG_AVX2 size_t give_avx2(const EdgePiece* pieces, size_t count, const GiveRules& how, const Gifts& out,
                           bool* damaged) {
  const Rules8 rules{_mm256_set1_ps(how.rules->decay), _mm256_set1_ps(how.rules->transfer_floor)};
  const __m256i slots = _mm256_set1_epi32(how.slots), none = _mm256_set1_epi32(-1);
  const __m256i seven = _mm256_setr_epi32(-1, -1, -1, -1, -1, -1, -1, 0);
  __m256i bad = _mm256_setzero_si256();
  size_t size = 0;
  for (const EdgePiece* piece = pieces; piece != pieces + count; ++piece) {
    const __m256i lanes = piece->edge & kInBlocks ? seven : none;
    const __m256i target = _mm256_maskload_epi32(piece->targets, lanes);
    const __m256 strengths = _mm256_maskload_ps(piece->strengths, lanes);
    const __m256i inside =
        _mm256_and_si256(_mm256_cmpgt_epi32(target, none), _mm256_cmpgt_epi32(slots, target));
    bad = _mm256_or_si256(bad, _mm256_andnot_si256(inside, _mm256_xor_si256(target, none)));
    const __m256i given = give_eight(strengths, piece->now, rules);
    __m256i amount = given;
    if (piece->before > 0.0f) amount = _mm256_sub_epi32(amount, give_eight(strengths, piece->before, rules));
    const __m256i carried =
        _mm256_and_si256(_mm256_and_si256(inside, lanes), _mm256_cmpgt_epi32(given, _mm256_setzero_si256()));
    const auto set = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(carried)));
    const __m256i order =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kCompressions.lanes[set])));
    const auto put = [&](void* to, __m256i values)
                         AESG_AVX2 { _mm256_storeu_si256(static_cast<__m256i*>(to), values); };
    put(out.targets + size, _mm256_permutevar8x32_epi32(target, order));
    put(out.amounts + size, _mm256_permutevar8x32_epi32(amount, order));
    put(out.firings + size, _mm256_set1_epi32(static_cast<int32_t>(piece->firing)));
    put(out.edges + size, _mm256_add_epi32(_mm256_set1_epi32(static_cast<int32_t>(piece->edge)), order));
    size += static_cast<size_t>(__builtin_popcount(set));
  }
  *damaged |= _mm256_testz_si256(bad, bad) == 0;
  return size;
}
#endif

}  // namespace

size_t give(const EdgePiece* pieces, size_t count, const GiveRules& how, const Gifts& out, bool* damaged) {
  if (how.region != 0) return give_regions(pieces, count, how, out, damaged);
#if defined(__x86_64__)
  static const bool wide = pick_isa() != Isa::kPortable;
  if (wide) return give_avx2(pieces, count, how, out, damaged);
#endif
  return give_portable(pieces, count, how, out, damaged);
}

}  // namespace aesg::cpu
