// Just enough SIMD to write a kernel once and compile it for several instruction sets of one machine.
//
// A kernel is written in a .inl file against AESG_SIMD (one of the structs below) and AESG_TARGET (the
// attribute every function of it carries) and included once per instruction set; pick_isa() chooses at run
// time. `fma` is a true fused multiply-add everywhere but in Portable on a machine without one, so results
// have the same bits on every machine that has FMA.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace aesg::cpu {

enum class Isa { kPortable, kAvx2, kAvx512 };

// The best instruction set of this machine. AESG_ISA=portable|avx2 in the environment caps it, for tests.
inline Isa pick_isa() {
  Isa best = Isa::kPortable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  best = avx512 ? Isa::kAvx512 : avx2 ? Isa::kAvx2 : Isa::kPortable;
#endif
  const char* cap = std::getenv("AESG_ISA");
  if (cap != nullptr && std::strcmp(cap, "portable") == 0) return Isa::kPortable;
  if (cap != nullptr && std::strcmp(cap, "avx2") == 0 && best == Isa::kAvx512) return Isa::kAvx2;
  return best;
}

#define AESG_INLINE inline __attribute__((always_inline))

// Four lanes in the compiler's vector extension: NEON on ARM, SSE2 on the oldest x86-64.
struct Portable {
  static constexpr int kLanes = 4;
  static constexpr int kQueryBlock = 4;  // 4 x 2 accumulators, 2 operands, 1 broadcast: within 16 registers
  typedef float Vec __attribute__((vector_size(16)));
  typedef int32_t Bits __attribute__((vector_size(16)));
  static AESG_INLINE Vec zero() { return Vec{0, 0, 0, 0}; }
  static AESG_INLINE Vec broadcast(const float* p) { return Vec{*p, *p, *p, *p}; }
  static AESG_INLINE Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static AESG_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
  static AESG_INLINE Vec mul(Vec a, Vec b) { return a * b; }
  static AESG_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__aarch64__)
    return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
  }
  // Bit i: a[i] > b[i], false for NaN.
  static AESG_INLINE uint32_t greater(Vec a, Vec b) {
    const Bits m = a > b;
    return static_cast<uint32_t>((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8));
  }
};

#if defined(__x86_64__)
#define AESG_AVX2 __attribute__((target("avx2,fma")))
#define AESG_AVX512 __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")))

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr int kQueryBlock = 6;  // 6 x 2 accumulators, 2 operands, 1 broadcast: within 16 registers
  using Vec = __m256;
  static AESG_INLINE AESG_AVX2 Vec zero() { return _mm256_setzero_ps(); }
  static AESG_INLINE AESG_AVX2 Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static AESG_INLINE AESG_AVX2 Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static AESG_INLINE AESG_AVX2 void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static AESG_INLINE AESG_AVX2 Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static AESG_INLINE AESG_AVX2 Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static AESG_INLINE AESG_AVX2 uint32_t greater(Vec a, Vec b) {
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
  }
};

struct Avx512 {
  static constexpr int kLanes = 16;
  static constexpr int kQueryBlock = 12;  // 12 x 2 accumulators, 2 operands: within 32 registers
  using Vec = __m512;
  static AESG_INLINE AESG_AVX512 Vec zero() { return _mm512_setzero_ps(); }
  static AESG_INLINE AESG_AVX512 Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static AESG_INLINE AESG_AVX512 Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static AESG_INLINE AESG_AVX512 void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static AESG_INLINE AESG_AVX512 Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static AESG_INLINE AESG_AVX512 Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static AESG_INLINE AESG_AVX512 uint32_t greater(Vec a, Vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
  }
};

// Eight rows of eight floats, rows `stride` apart, written as eight columns `panel` apart.
static AESG_INLINE AESG_AVX2 void transpose_8x8(const float* from, int64_t stride, float* to, int64_t panel) {
  const __m256 r0 = _mm256_loadu_ps(from), r1 = _mm256_loadu_ps(from + stride);
  const __m256 r2 = _mm256_loadu_ps(from + 2 * stride), r3 = _mm256_loadu_ps(from + 3 * stride);
  const __m256 r4 = _mm256_loadu_ps(from + 4 * stride), r5 = _mm256_loadu_ps(from + 5 * stride);
  const __m256 r6 = _mm256_loadu_ps(from + 6 * stride), r7 = _mm256_loadu_ps(from + 7 * stride);
  const __m256 a0 = _mm256_unpacklo_ps(r0, r1), a1 = _mm256_unpackhi_ps(r0, r1);
  const __m256 a2 = _mm256_unpacklo_ps(r2, r3), a3 = _mm256_unpackhi_ps(r2, r3);
  const __m256 a4 = _mm256_unpacklo_ps(r4, r5), a5 = _mm256_unpackhi_ps(r4, r5);
  const __m256 a6 = _mm256_unpacklo_ps(r6, r7), a7 = _mm256_unpackhi_ps(r6, r7);
  const __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
  const __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
  const __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
  const __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
  _mm256_storeu_ps(to, _mm256_permute2f128_ps(b0, b4, 0x20));
  _mm256_storeu_ps(to + panel, _mm256_permute2f128_ps(b1, b5, 0x20));
  _mm256_storeu_ps(to + 2 * panel, _mm256_permute2f128_ps(b2, b6, 0x20));
  _mm256_storeu_ps(to + 3 * panel, _mm256_permute2f128_ps(b3, b7, 0x20));
  _mm256_storeu_ps(to + 4 * panel, _mm256_permute2f128_ps(b0, b4, 0x31));
  _mm256_storeu_ps(to + 5 * panel, _mm256_permute2f128_ps(b1, b5, 0x31));
  _mm256_storeu_ps(to + 6 * panel, _mm256_permute2f128_ps(b2, b6, 0x31));
  _mm256_storeu_ps(to + 7 * panel, _mm256_permute2f128_ps(b3, b7, 0x31));
}
#endif  // __x86_64__

}  // namespace aesg::cpu
