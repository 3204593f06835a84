#include "csrc/graph/common_part.h"

#include <algorithm>
#include <cmath>

#include "csrc/graph/population.h"

namespace aesg::graph {
namespace {

// The part of a vector along the common direction, and the whole's squared length.
struct Along {
  double part, square;
};

Along along(const double* common, const float* vector, int64_t dim) {
  Along found{0, 0};
  for (int64_t d = 0; d < dim; ++d) {
    const double value = vector[d];
    found.part += value * common[d];
    found.square += value * value;
  }
  return found;
}

bool something_left(double rest, double square) { return rest > kNothingLeft * kNothingLeft * square; }

}  // namespace

void inverse_norms_without(const double* common, const float* rows, int64_t n, int64_t dim, float* inverse) {
  for (int64_t row = 0; row < n; ++row) {
    const float* vector = rows + row * dim;
    const Along whole = along(common, vector, dim);
    double rest = 0;
    for (int64_t d = 0; d < dim; ++d) {
      const double value = vector[d] - whole.part * common[d];
      rest += value * value;
    }
    const bool there = something_left(rest, whole.square) && std::sqrt(rest) >= kShortest;
    inverse[row] = there ? static_cast<float>(1.0 / std::sqrt(rest)) : 0.0f;
  }
}

float cosine_without(const double* common, const float* a, const float* b, int64_t dim) {
  const Along one = along(common, a, dim), other = along(common, b, dim);
  double product = 0, left = 0, right = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const double x = a[d] - one.part * common[d], y = b[d] - other.part * common[d];
    product += x * y;
    left += x * x;
    right += y * y;
  }
  if (!something_left(left, one.square) || !something_left(right, other.square)) return 0.0f;
  return static_cast<float>(std::clamp(product / std::sqrt(left * right), -1.0, 1.0));
}

}  // namespace aesg::graph
