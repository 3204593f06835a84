// The launchers of csrc/ops/gpu with a C face, over kernels that run on the host: the test compiles the .cu
// files beside this one, with their launches rewritten.
#include "tests/ops/on_host/launchers.h"

#include "tests/ops/on_host/cuda_on_host.h"

using namespace on_host;

extern "C" {

void on_host_order(unsigned seed) { on_host::order.seed(seed); }

int on_host_seed_search(const float* queries, int64_t batch, int64_t dim, const float* vectors, int64_t rows,
                        int64_t group_stride, const float* inv_norm, const uint8_t* active, int64_t count,
                        float min_score, int64_t k, bool exact, float* scores, int64_t* slots) {
  Column<const float> column = flat(vectors, rows, dim);
  if (group_stride != 0) column = {vectors, rows, dim, group_stride, kRowsPerGroup - 1, kGroupShift};
  const gpu::SeedSearch job{queries, batch,     dim, column, flat(inv_norm, rows), flat(active, rows),
                            count,   min_score, k,   exact};
  return gpu::seed_search(job, workspace(gpu::seed_search_workspace(job)).data(), scores, slots, nullptr);
}

int on_host_keep_primary(int64_t* slots, int64_t* slot_ids, float* slot_energies, int64_t streams,
                         int64_t kept, const int64_t* members, const float* energies, int64_t members_each,
                         int64_t steps, const int64_t* ids, int64_t rows) {
  return gpu::keep_primary({members, energies, streams, steps, members_each, flat(ids, rows), kept, slots,
                            slot_ids, slot_energies},
                           nullptr);
}

int on_host_spread(const int64_t* seeds, const float* energies, int64_t batch, int64_t count,
                   void* const* columns, int64_t slots, int64_t blocks, const Rules* rules, int64_t k,
                   float* out_energies, int64_t* out_slots) {
  const gpu::Spread job{seeds, energies, batch, count, graph_of(columns, slots, blocks), rules_of(*rules), k};
  return gpu::spread_activation(job, workspace(gpu::spread_activation_workspace(job)).data(), out_energies,
                                out_slots, nullptr, nullptr);
}

int on_host_activate(const float* similarities, const int64_t* seeds, const float* bar, int64_t batch,
                     int64_t count, const int64_t* primed, const int64_t* primed_ids,
                     const float* primed_energies, const int64_t* ids, int64_t primed_count, float share,
                     const float* vectors, int64_t dim, void* const* columns, int64_t slots, int64_t blocks,
                     const Rules* rules, float relative, int64_t k, int64_t* out_seeds,
                     float* out_similarities, int64_t* members, float* energies, float* out_vectors,
                     float* jacobian, float* seed_vectors) {
  const gpu::ActivateContext job{similarities,
                                 seeds,
                                 bar,
                                 batch,
                                 count,
                                 primed,
                                 primed_ids,
                                 primed_energies,
                                 flat(ids, slots),
                                 primed_count,
                                 share,
                                 flat(vectors, slots, dim),
                                 dim,
                                 graph_of(columns, slots, blocks),
                                 rules_of(*rules),
                                 relative,
                                 k,
                                 jacobian != nullptr};
  return gpu::activate_context(
      job, workspace(gpu::activate_context_workspace(job)).data(),
      {out_seeds, out_similarities, members, energies, out_vectors, jacobian, seed_vectors}, nullptr);
}

int on_host_read(const float* sought, const float* queries, const float* weight, const float* vectors,
                 const float* energies, int64_t batch, int64_t heads, int64_t members, int64_t dim,
                 float* found, float* mean, float* shares) {
  return gpu::read_members({sought, queries, weight, vectors, energies, batch, heads, members, dim}, found,
                           mean, shares, nullptr);
}

int on_host_read_backward(const float* sought, const float* queries, const float* weight,
                          const float* vectors, const float* energies, int64_t batch, int64_t heads,
                          int64_t members, int64_t dim, const float* shares, const float* grad_found,
                          const float* grad_mean, float* grad_sought, float* grad_queries, float* grad_weight,
                          float* grad_energies) {
  return gpu::read_members_backward({sought, queries, weight, vectors, energies, batch, heads, members, dim},
                                    {shares, grad_found, grad_mean},
                                    {grad_sought, grad_queries, grad_weight, grad_energies}, nullptr);
}

}  // extern "C"
