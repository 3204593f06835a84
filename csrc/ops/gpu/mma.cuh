// The product of small matrices by one warp on tensor cores: C[16, 8] += A[16, 16] B[16, 8], bf16 with sums
// in f32. Who holds what (PTX ISA, mma.m16n8k16), with g = lane / 4 and c = lane % 4, two values a register,
// the lower first:
//   A: a[0] row g, a[1] row g + 8, columns 2c and 2c + 1; a[2], a[3] the same rows, columns 2c + 8 and 2c + 9
//   B: b0 rows 2c and 2c + 1, b1 rows 2c + 8 and 2c + 9, both column g
//   C: c[0], c[1] row g, columns 2c and 2c + 1; c[2], c[3] row g + 8
#pragma once

#include <cstdint>

namespace aesg::gpu {

#if defined(__CUDACC__)

// Two floats rounded to the nearest bf16, ties to even.
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// By all threads of a warp together.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else  // run on the host by tests/ops/on_host/cuda_on_host.h

inline uint32_t pack_bf16(float low, float high) {
  return on_host::as_bf16(low) | static_cast<uint32_t>(on_host::as_bf16(high)) << 16;
}
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  on_host::multiply_add(c, a, b0, b1);
}

#endif

__device__ inline float low_of_bf16(uint32_t packed) { return __uint_as_float(packed << 16); }
__device__ inline float high_of_bf16(uint32_t packed) { return __uint_as_float(packed & 0xffff0000u); }

}  // namespace aesg::gpu
