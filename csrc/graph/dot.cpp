#include "csrc/graph/dot.h"

// Compiled for three levels of x86-64, chosen when loaded. Off under ThreadSanitizer, which cannot run the
// choosing. No contraction (-ffp-contract=off), so all three give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define AESG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define AESG_CLONES
#endif

namespace aesg::graph {

AESG_CLONES float dot(const float* a, const float* b, int64_t dim) {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[d + lane] * b[d + lane];
  for (int lane = 0; d < dim; ++d, ++lane) lanes[lane] += a[d] * b[d];
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}

}  // namespace aesg::graph
