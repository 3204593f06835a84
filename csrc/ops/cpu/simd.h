// Just enough SIMD to write a kernel once and compile it for several instruction sets of one machine.
//
// A kernel is written in a .inl file against AESG_SIMD (one of the structs below) and AESG_TARGET (the
// attribute every function of it carries) and included once per instruction set; pick_isa() chooses at run
// time. `fma` is a true fused multiply-add everywhere but in Portable on a machine without one, so results
// have the same bits on every machine that has FMA.
#pragma once

#include <cmath>
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

// For loops the compiler vectorises by itself: compiled for three levels of x86-64, chosen when loaded. Off
// under ThreadSanitizer, which cannot run the choosing.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define AESG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define AESG_CLONES
#endif

#define AESG_INLINE inline __attribute__((always_inline))

// Four lanes in the compiler's vector extension: NEON on ARM, SSE2 on the oldest x86-64.
struct Portable {
  static constexpr int kLanes = 4;
  static constexpr int kQueryBlock = 4;  // 4 x 2 accumulators, 2 operands, 1 broadcast: within 16 registers
  typedef float Vec __attribute__((vector_size(16)));
  typedef int32_t Mask __attribute__((vector_size(16)));
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
  static AESG_INLINE float fma(float a, float b, float c) {
#if defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
  }
  static AESG_INLINE Vec splat(float x) { return Vec{x, x, x, x}; }
  static AESG_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
  static AESG_INLINE Mask nearest(Vec a) {  // integers, ties to even
#if defined(__x86_64__)
    return (Mask)_mm_cvtps_epi32((__m128)a);
#elif defined(__aarch64__)
    return (Mask)vcvtnq_s32_f32((float32x4_t)a);
#else
    return Mask{static_cast<int32_t>(std::lrintf(a[0])), static_cast<int32_t>(std::lrintf(a[1])),
                static_cast<int32_t>(std::lrintf(a[2])), static_cast<int32_t>(std::lrintf(a[3]))};
#endif
  }
  static AESG_INLINE void store(int32_t* p, Mask v) { std::memcpy(p, &v, sizeof v); }
  static AESG_INLINE Mask greater(Vec a, Vec b) { return a > b; }  // false for NaN
  static AESG_INLINE Mask either(Mask a, Mask b) { return a | b; }
  static AESG_INLINE uint32_t bits(Mask m) {  // bit i: lane i
#if defined(__x86_64__)
    return static_cast<uint32_t>(_mm_movemask_ps((__m128)m));
#else
    return static_cast<uint32_t>((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8));
#endif
  }
};

#if defined(__x86_64__)
#define AESG_AVX2 __attribute__((target("avx2,fma")))
#define AESG_AVX512 __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")))

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr int kQueryBlock = 6;  // 6 x 2 accumulators, 2 operands, 1 broadcast: within 16 registers
  using Vec = __m256;
  using Mask = __m256;
  static AESG_INLINE AESG_AVX2 Vec zero() { return _mm256_setzero_ps(); }
  static AESG_INLINE AESG_AVX2 Vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static AESG_INLINE AESG_AVX2 Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static AESG_INLINE AESG_AVX2 void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static AESG_INLINE AESG_AVX2 Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static AESG_INLINE AESG_AVX2 Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static AESG_INLINE AESG_AVX2 float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static AESG_INLINE AESG_AVX2 Mask greater(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static AESG_INLINE AESG_AVX2 Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  static AESG_INLINE AESG_AVX2 uint32_t bits(Mask m) { return static_cast<uint32_t>(_mm256_movemask_ps(m)); }
};

struct Avx512 {
  static constexpr int kLanes = 16;
  static constexpr int kQueryBlock = 12;  // 12 x 2 accumulators, 2 operands: within 32 registers
  using Vec = __m512;
  using Mask = __mmask16;
  static AESG_INLINE AESG_AVX512 Vec zero() { return _mm512_setzero_ps(); }
  static AESG_INLINE AESG_AVX512 Vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static AESG_INLINE AESG_AVX512 Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static AESG_INLINE AESG_AVX512 void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static AESG_INLINE AESG_AVX512 Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static AESG_INLINE AESG_AVX512 Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static AESG_INLINE AESG_AVX512 float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static AESG_INLINE AESG_AVX512 Mask greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static AESG_INLINE AESG_AVX512 Mask either(Mask a, Mask b) { return static_cast<Mask>(a | b); }
  static AESG_INLINE AESG_AVX512 uint32_t bits(Mask m) { return m; }
};

// Eight rows of four floats, rows `stride` apart, as four columns of eight. Rows r and r + 4 are joined while
// loading, which costs no shuffle; the rest is a 4x4 transpose within 128-bit lanes.
static AESG_INLINE AESG_AVX2 void transpose_8x4(const float* from, int64_t stride, __m256 (&column)[4]) {
  __m256 r[4];
  const float* below = from + 4 * stride;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + i * stride)),
                                _mm_loadu_ps(below + i * stride), 1);
  const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
  const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
  column[0] = _mm256_shuffle_ps(a, c, 0x44);
  column[1] = _mm256_shuffle_ps(a, c, 0xee);
  column[2] = _mm256_shuffle_ps(b, d, 0x44);
  column[3] = _mm256_shuffle_ps(b, d, 0xee);
}
#endif  // __x86_64__

}  // namespace aesg::cpu
