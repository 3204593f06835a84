// Likeness without the direction that all queries share (docs/self_organisation.md, "Query health").
// A vector v without the common direction u (length 1) is v - (v.u) u.
#pragma once

#include <cstdint>

namespace aesg::graph {

// 1 / |v - (v.u) u| of each of n rows [dim], 0 where nothing is left. In double, without cancellation: the
// same bits on every machine. Cost O(n dim).
void inverse_norms_without(const double* common, const float* rows, int64_t n, int64_t dim, float* inverse);

// Cosine of two vectors without the common direction, 0 where nothing is left of one. Cost O(dim).
float cosine_without(const double* common, const float* a, const float* b, int64_t dim);

}  // namespace aesg::graph
