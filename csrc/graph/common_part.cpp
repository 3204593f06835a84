#include "csrc/graph/common_part.h"

#include <algorithm>
#include <cmath>

#include "csrc/base/project_out_math.h"

namespace aesg::graph {
void inverse_norms_without(const double* common, const float* rows, int64_t n, int64_t dim, float* inverse) {
  for (int64_t row = 0; row < n; ++row) {
    const float* vector = rows + row * dim;
    const Along whole = along(common, vector, dim);
    inverse[row] = inverse_rest(rest_square(common, vector, dim, whole.part), whole.square);
  }
}

float cosine_without(const double* common, const float* a, const float* b, int64_t dim) {
  const Along one = along(common, a, dim), other = along(common, b, dim);
  double product = 0, left = 0, right = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const double x = rest_of(a[d], one.part, common[d]), y = rest_of(b[d], other.part, common[d]);
    product += x * y;
    left += x * x;
    right += y * y;
  }
  if (nothing_left(left, one.square) || nothing_left(right, other.square)) return 0.0f;
  return static_cast<float>(std::clamp(product / std::sqrt(left * right), -1.0, 1.0));
}

}  // namespace aesg::graph
