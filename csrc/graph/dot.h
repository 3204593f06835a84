// The dot product the rules compare concepts by.
#pragma once

#include <cstdint>

namespace aesg::graph {

// sum a[d] * b[d] in f32 over 16 lanes, the lanes added pairwise: the same bits on every machine.
float dot(const float* a, const float* b, int64_t dim);

}  // namespace aesg::graph
