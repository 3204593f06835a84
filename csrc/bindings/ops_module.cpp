// Schemas of the ops. Implementations register themselves at the end of csrc/ops/<op>.cpp; fakes and autograd
// lie beside the public function in aesg/ops/<op>.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(aesg, m) {
  m.def(
      "seed_search(Tensor queries, Tensor vectors, int k, Tensor? inv_norm, Tensor? active, int? count, "
      "float min_score) -> (Tensor scores, Tensor indices)");
}
