// CRC-32C (Castagnoli, RFC 3720): the checksum of every file of a memory directory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace aesg {

// Extends `crc` (0 to begin with) over n bytes: crc32c(crc32c(0, a), b) == crc32c(0, a followed by b).
uint32_t crc32c(uint32_t crc, const void* data, size_t n);

// The table version, for processors without the instruction and to check the other against.
uint32_t crc32c_portable(uint32_t crc, const void* data, size_t n);

}  // namespace aesg
