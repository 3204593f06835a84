// CPU kernel of pool_novelty_ on plain pointers.
#pragma once

#include <cstdint>

namespace aesg::cpu {

struct NoveltyPool {
  float* candidates;  // [P, D] running means
  int32_t* counts;    // [P] inputs that joined
  int64_t* stamps;    // [P] clock at the last join
  int64_t* state;     // [2] candidates in use, clock
  int64_t capacity;   // P >= 1
  int64_t dim;        // D
};

struct NoveltyRules {
  float threshold;      // an input joins a candidate of at least this cosine
  int32_t birth_count;  // inputs that make a candidate a concept
  bool birth_first;     // the first input is born whatever its count
};

// Inputs [n, D] in order; born [n] and born_vectors [n, D] are written. O(n P D) at worst.
void pool_novelty(const NoveltyPool& pool, const NoveltyRules& rules, const float* inputs, int64_t n,
                  uint8_t* born, float* born_vectors);

}  // namespace aesg::cpu
