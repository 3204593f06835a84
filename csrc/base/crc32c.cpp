#include "csrc/base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace aesg {
namespace {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ 0x82F63B78u : c >> 1;
    t[0][i] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t i = 0; i < 256; ++i) t[k][i] = (t[k - 1][i] >> 8) ^ t[0][t[k - 1][i] & 0xFF];
  }
  return t;
}

constexpr Tables kTables = make_tables();

#if defined(__x86_64__)

// Four streams, the quarters of a page, hide the instruction's latency of three cycles; their results are
// joined by advancing a CRC over kStride zero bytes, a linear map kept as four tables.
constexpr size_t kStride = 1024;

using Advance = std::array<std::array<uint32_t, 256>, 4>;

constexpr Advance make_advance() {
  Advance a{};
  for (uint32_t byte = 0; byte < 4; ++byte) {
    for (uint32_t value = 0; value < 256; ++value) {
      uint32_t c = value << (8 * byte);
      if ((value & (value - 1)) == 0) {
        for (size_t i = 0; i < kStride; ++i) c = (c >> 8) ^ kTables[0][c & 0xFF];
        a[byte][value] = c;
      } else {
        uint32_t low = value & (~value + 1);
        a[byte][value] = a[byte][low] ^ a[byte][value ^ low];
      }
    }
  }
  return a;
}

const Advance kAdvance = make_advance();

uint64_t advance(uint64_t crc) {
  return kAdvance[0][crc & 0xFF] ^ kAdvance[1][(crc >> 8) & 0xFF] ^ kAdvance[2][(crc >> 16) & 0xFF] ^
         kAdvance[3][(crc >> 24) & 0xFF];
}

uint64_t word_at(const uint8_t* p) {
  uint64_t word;
  std::memcpy(&word, p, 8);
  return word;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_hardware(uint32_t crc, const uint8_t* p, size_t n) {
  uint64_t c = ~crc;
  while (n >= 4 * kStride) {
    uint64_t c1 = 0, c2 = 0, c3 = 0;
    for (size_t i = 0; i < kStride; i += 8) {
      c = _mm_crc32_u64(c, word_at(p + i));
      c1 = _mm_crc32_u64(c1, word_at(p + kStride + i));
      c2 = _mm_crc32_u64(c2, word_at(p + 2 * kStride + i));
      c3 = _mm_crc32_u64(c3, word_at(p + 3 * kStride + i));
    }
    c = advance(advance(advance(c) ^ c1) ^ c2) ^ c3;
    p += 4 * kStride;
    n -= 4 * kStride;
  }
  for (; n >= 8; n -= 8, p += 8) c = _mm_crc32_u64(c, word_at(p));
  for (; n > 0; --n, ++p) c = _mm_crc32_u8(static_cast<uint32_t>(c), *p);
  return ~static_cast<uint32_t>(c);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

uint32_t crc32c_hardware(uint32_t crc, const uint8_t* p, size_t n) {
  uint32_t c = ~crc;
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    c = __crc32cd(c, word);
  }
  for (; n > 0; --n, ++p) c = __crc32cb(c, *p);
  return ~c;
}

#endif

}  // namespace

uint32_t crc32c_portable(uint32_t crc, const void* data, size_t n) {
  const auto* p = static_cast<const uint8_t*>(data);
  uint32_t c = ~crc;
  for (; n >= 8; n -= 8, p += 8) {
    uint32_t low, high;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + 4, 4);
    low ^= c;
    c = kTables[7][low & 0xFF] ^ kTables[6][(low >> 8) & 0xFF] ^ kTables[5][(low >> 16) & 0xFF] ^
        kTables[4][low >> 24] ^ kTables[3][high & 0xFF] ^ kTables[2][(high >> 8) & 0xFF] ^
        kTables[1][(high >> 16) & 0xFF] ^ kTables[0][high >> 24];
  }
  for (; n > 0; --n, ++p) c = (c >> 8) ^ kTables[0][(c ^ *p) & 0xFF];
  return ~c;
}

uint32_t crc32c(uint32_t crc, const void* data, size_t n) {
#if defined(__x86_64__)
  static const bool hardware = __builtin_cpu_supports("sse4.2");
  if (hardware) return crc32c_hardware(crc, static_cast<const uint8_t*>(data), n);
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
  return crc32c_hardware(crc, static_cast<const uint8_t*>(data), n);
#endif
  return crc32c_portable(crc, data, n);
}

}  // namespace aesg
