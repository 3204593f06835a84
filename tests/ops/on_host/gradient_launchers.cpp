// As launchers.cpp, of what gives derivatives.
#include "tests/ops/on_host/cuda_on_host.h"
#include "tests/ops/on_host/launchers.h"

using namespace on_host;

extern "C" {

int on_host_spread_traced(const int64_t* seeds, const float* energies, int64_t batch, int64_t count,
                          void* const* columns, int64_t slots, int64_t blocks, const Rules* rules, int64_t k,
                          float* out_energies, int64_t* out_slots, float* jacobian) {
  const gpu::Spread job{seeds, energies, batch, count, graph_of(columns, slots, blocks), rules_of(*rules),
                        k,     true};
  return gpu::spread_activation(job, workspace(gpu::spread_activation_workspace(job)).data(), out_energies,
                                out_slots, jacobian, nullptr);
}

int on_host_spread_backward(const float* gradients, const int64_t* found, const int64_t* seeds,
                            const float* energies, int64_t batch, int64_t count, void* const* columns,
                            int64_t slots, int64_t blocks, const Rules* rules, int64_t k, float* sums) {
  const gpu::SpreadBackward job{
      {seeds, energies, batch, count, graph_of(columns, slots, blocks), rules_of(*rules), k},
      gradients,
      found};
  return gpu::spread_activation_backward(
      job, workspace(gpu::spread_activation_backward_workspace(job)).data(), sums, nullptr);
}

int on_host_replay(const float* energies, int64_t count, float* out) {
  return gpu::replay_energies(energies, count, out, nullptr);
}

int on_host_replay_backward(const float* gradients, const float* queries, const int64_t* seeds,
                            const float* similarities, const float* jacobian, const float* seed_vectors,
                            int64_t batch, int64_t dim, int64_t members, int64_t count, float* out) {
  return gpu::replay_energies_backward(
      {gradients, queries, seeds, similarities, jacobian, seed_vectors, batch, dim, members, count}, out,
      nullptr);
}

}  // extern "C"
