// spread_activation as torch sees it: checks, threads, registration. Kernel:
// csrc/ops/cpu/spread_activation.cpp.
#include "csrc/ops/cpu/spread_activation.h"

#include <algorithm>
#include <atomic>
#include <tuple>
#include <type_traits>
#include <vector>

#include "csrc/ops/cpu/spread_trace.h"
#include "csrc/ops/device.h"
#include "csrc/ops/plain_calls.h"
#include "csrc/ops/spread_args.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kQueriesPerTask = 2;  // a query takes some microseconds

struct Arguments : SpreadCall {
  Tensor seed_indices, seed_energies;  // what `seeds` and `energies` point into
};

Arguments check(const Tensor& seed_indices, const Tensor& seed_energies, const Tensor& first_block,
                const Tensor& targets, const Tensor& strengths, const Tensor& next_block,
                const Tensor& active, const std::optional<Tensor>& regions, int64_t hops, double decay,
                double facilitation, double source_floor, double transfer_floor, int64_t k) {
  expect_dense<int64_t>(seed_indices, "seed_indices", 2, "[B, S]", kNavigationError);
  expect_dense<float>(seed_energies, "seed_energies", 2, "[B, S]", kNavigationError);
  const int64_t batch = seed_indices.size(0), seeds = seed_indices.size(1);
  expect(seed_energies.size(0) == batch && seed_energies.size(1) == seeds, kNavigationError,
         "seed_energies: expected the shape of seed_indices, ", shape_of{seed_indices}, ", got ",
         shape_of{seed_energies});
  expect_k(k, batch);
  expect_same_device(seed_energies, "seed_energies", seed_indices, "seed_indices");
  Arguments made{{}, dense(seed_indices), dense(seed_energies)};
  made.seeds = static_cast<const int64_t*>(made.seed_indices.data_ptr());
  made.energies = static_cast<const float*>(made.seed_energies.data_ptr());
  made.batch = batch;
  made.width = seeds;
  made.k = k;
  made.rules = spread_rules(hops, decay, facilitation, source_floor, transfer_floor);
  made.graph = spread_graph(first_block, targets, strengths, next_block, active, regions, seed_indices,
                            "seed_indices");
  return made;
}

// Values of the seeds; their tensors are on the CPU here.
void check_seeds(const SpreadCall& call) {
  const int64_t n = call.batch * call.width, limit = call.graph.first_block.rows;
  for (int64_t i = 0; i < n; ++i)
    expect(call.seeds[i] >= -1 && call.seeds[i] < limit, kNavigationError,
           "seed_indices: expected slots in -1..", limit - 1, ", got ", call.seeds[i]);
  expect(all_finite(call.energies, n), kNavigationError,
         "seed_energies: expected finite values, got NaN or infinity");
}

// visit(b, worker) for every query after its run, on all threads. Worker: cpu::Spreader, whose lists of edges
// serve all queries of the call, or cpu::SpreadTrace. False: the edges are damaged.
template <typename Worker, typename Visit>
bool spread_all(const SpreadCall& call, const Visit& visit) {
  constexpr bool kKeepsLists = std::is_same_v<Worker, cpu::Spreader>;
  const int64_t width = call.width;
  std::atomic<bool> damaged{false};
  const auto run = [&](int64_t begin, int64_t end) {
    static thread_local Worker worker;  // keeps its memory between calls
    if constexpr (kKeepsLists) worker.begin_call(call.graph, call.rules);
    const int64_t together = std::max<int64_t>(1, cpu::Spreader::kSeedsAhead / std::max<int64_t>(width, 1));
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * width;
      if constexpr (kKeepsLists) {
        if ((b - begin) % together == 0 && b + 1 < end)
          worker.look_ahead(call.seeds + at, std::min(together, end - b) * width);
        worker.run(call.seeds + at, call.energies + at, width);
      } else {
        worker.run(call.graph, call.rules, call.seeds + at, call.energies + at, width);
      }
      visit(b, worker);
    }
    if (worker.take_damage()) damaged = true;
  };
  torch::stable::parallel_for(0, call.batch, kQueriesPerTask, run);
  return !damaged;
}

bool spread_plain(const SpreadCall& call, float* energies, int64_t* slots) {
  return spread_all<cpu::Spreader>(call, [&](int64_t b, cpu::Spreader& worker) {
    worker.result(call.k, energies + b * call.k, slots + b * call.k);
  });
}

// energies [B, k] f32 and slots [B, k] i64, strongest first, and, when asked for, d energy / d seed energy
// [B, k, S] (else empty). The derivative is taken here, not in backward: the graph may have grown by then.
std::tuple<Tensor, Tensor, Tensor> spread_activation_cpu(
    const Tensor& seed_indices, const Tensor& seed_energies, const Tensor& first_block, const Tensor& targets,
    const Tensor& strengths, const Tensor& next_block, const Tensor& active, std::optional<Tensor> regions,
    int64_t hops, double decay, double facilitation, double source_floor, double transfer_floor, int64_t k,
    bool jacobian) {
  const Arguments arguments =
      check(seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions, hops,
            decay, facilitation, source_floor, transfer_floor, k);
  check_seeds(arguments);
  const int64_t batch = arguments.batch, seeds = arguments.width;
  Tensor energies = make_tensor(seed_energies, {batch, k}, ScalarType::Float);
  Tensor slots = make_tensor(seed_energies, {batch, k}, ScalarType::Long);
  Tensor slopes = make_tensor(seed_energies, {jacobian ? batch : 0, k, seeds}, ScalarType::Float);
  auto* energy = static_cast<float*>(energies.data_ptr());
  auto* slot = static_cast<int64_t*>(slots.data_ptr());
  auto* slope = static_cast<float*>(slopes.data_ptr());
  const bool whole = jacobian ? spread_all<cpu::SpreadTrace>(arguments,
                                                             [&](int64_t b, cpu::SpreadTrace& worker) {
                                                               worker.result(k, energy + b * k, slot + b * k,
                                                                             slope + b * k * seeds);
                                                             })
                              : spread_plain(arguments, energy, slot);
  expect(whole, kMemoryError, kDamagedEdges);
  return {energies, slots, slopes};
}

Arguments check_backward(const Tensor& gradients, const Tensor& indices, const Tensor& seed_indices,
                         const Tensor& seed_energies, const Tensor& first_block, const Tensor& targets,
                         const Tensor& strengths, const Tensor& next_block, const Tensor& active,
                         const std::optional<Tensor>& regions, int64_t hops, double decay,
                         double facilitation, double source_floor, double transfer_floor) {
  expect_dense<float>(gradients, "gradients", 2, "[B, k]");
  expect_dense<int64_t>(indices, "indices", 2, "[B, k]");
  const int64_t k = gradients.size(1);
  const Arguments arguments =
      check(seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions, hops,
            decay, facilitation, source_floor, transfer_floor, k);
  for (const Tensor* tensor : {&gradients, &indices}) {
    expect(tensor->size(0) == arguments.batch && tensor->size(1) == k, kMemoryError,
           "gradients, indices: expected [", arguments.batch, ", ", k, "], got ", shape_of{*tensor});
    expect_same_device(*tensor, "gradients, indices", seed_indices, "seed_indices");
  }
  return arguments;
}

// Of the shape of `strengths`, dense.
Tensor make_sums(const Tensor& strengths) {
  return strengths.dim() == 2
             ? make_tensor(strengths, {strengths.size(0), strengths.size(1)}, ScalarType::Float)
             : make_tensor(strengths, {strengths.size(0), strengths.size(1), strengths.size(2)},
                           ScalarType::Float);
}

// d loss / d strengths, a dense tensor of the shape of `strengths`. Queries are added in order, so the bits
// do not depend on the number of threads.
Tensor spread_activation_backward_cpu(const Tensor& gradients, const Tensor& indices,
                                      const Tensor& seed_indices, const Tensor& seed_energies,
                                      const Tensor& first_block, const Tensor& targets,
                                      const Tensor& strengths, const Tensor& next_block, const Tensor& active,
                                      std::optional<Tensor> regions, int64_t hops, double decay,
                                      double facilitation, double source_floor, double transfer_floor) {
  const Arguments arguments =
      check_backward(gradients, indices, seed_indices, seed_energies, first_block, targets, strengths,
                     next_block, active, regions, hops, decay, facilitation, source_floor, transfer_floor);
  check_seeds(arguments);
  const int64_t k = arguments.k;
  const Tensor dense_gradients = dense(gradients), dense_indices = dense(indices);
  const auto* gradient = static_cast<const float*>(dense_gradients.data_ptr());
  const auto* slot = static_cast<const int64_t*>(dense_indices.data_ptr());
  std::vector<std::vector<cpu::EdgeGradient>> found(arguments.batch);
  const bool whole = spread_all<cpu::SpreadTrace>(arguments, [&](int64_t b, cpu::SpreadTrace& worker) {
    worker.backward(arguments.rules, gradient + b * k, slot + b * k, k, &found[b]);
  });
  expect(whole, kMemoryError, kDamagedEdges);
  Tensor sums = make_sums(strengths);
  torch::stable::zero_(sums);
  auto* sum = static_cast<float*>(sums.data_ptr());
  for (const auto& query : found)
    for (const cpu::EdgeGradient& edge : query) sum[edge.edge] += edge.gradient;
  return sums;
}

#if defined(AESG_WITH_CUDA)
gpu::Spread spread_on_device(const SpreadCall& call, bool jacobian) {
  expect(call.k <= gpu::kMostK, kNavigationError, "k: expected at most ", gpu::kMostK,
         " on a CUDA device, got ", call.k);
  return {call.seeds, call.energies, call.batch, call.width, on_device(call.graph), on_device(call.rules),
          call.k,     jacobian};
}

// Does not wait for the device: seeds outside the graph count as none, damaged chains end where they leave
// it.
std::tuple<Tensor, Tensor, Tensor> spread_activation_cuda(
    const Tensor& seed_indices, const Tensor& seed_energies, const Tensor& first_block, const Tensor& targets,
    const Tensor& strengths, const Tensor& next_block, const Tensor& active, std::optional<Tensor> regions,
    int64_t hops, double decay, double facilitation, double source_floor, double transfer_floor, int64_t k,
    bool jacobian) {
  const Arguments arguments =
      check(seed_indices, seed_energies, first_block, targets, strengths, next_block, active, regions, hops,
            decay, facilitation, source_floor, transfer_floor, k);
  const int64_t batch = arguments.batch, seeds = arguments.width;
  const gpu::Spread launch = spread_on_device(arguments, jacobian);
  const OnDevice device(seed_indices);
  Tensor energies = make_tensor(seed_energies, {batch, k}, ScalarType::Float);
  Tensor slots = make_tensor(seed_energies, {batch, k}, ScalarType::Long);
  Tensor slopes = make_tensor(seed_energies, {jacobian ? batch : 0, k, seeds}, ScalarType::Float);
  Tensor workspace = make_workspace(seed_energies, gpu::spread_activation_workspace(launch));
  expect_launched(
      gpu::spread_activation(launch, workspace.data_ptr(), static_cast<float*>(energies.data_ptr()),
                             static_cast<int64_t*>(slots.data_ptr()), static_cast<float*>(slopes.data_ptr()),
                             device.stream),
      "spread_activation");
  return {energies, slots, slopes};
}

Tensor spread_activation_backward_cuda(const Tensor& gradients, const Tensor& indices,
                                       const Tensor& seed_indices, const Tensor& seed_energies,
                                       const Tensor& first_block, const Tensor& targets,
                                       const Tensor& strengths, const Tensor& next_block,
                                       const Tensor& active, std::optional<Tensor> regions, int64_t hops,
                                       double decay, double facilitation, double source_floor,
                                       double transfer_floor) {
  const Arguments arguments =
      check_backward(gradients, indices, seed_indices, seed_energies, first_block, targets, strengths,
                     next_block, active, regions, hops, decay, facilitation, source_floor, transfer_floor);
  expect(hops <= gpu::kMostHopsBack, kNavigationError, "hops: expected at most ", gpu::kMostHopsBack,
         " for a gradient of strengths on a CUDA device, got ", hops);
  const OnDevice device(seed_indices);
  const Tensor dense_gradients = dense(gradients), dense_indices = dense(indices);
  const gpu::SpreadBackward launch{spread_on_device(arguments, false),
                                   static_cast<const float*>(dense_gradients.data_ptr()),
                                   static_cast<const int64_t*>(dense_indices.data_ptr())};
  Tensor sums = make_sums(strengths);
  Tensor workspace = make_workspace(seed_energies, gpu::spread_activation_backward_workspace(launch));
  expect_launched(gpu::spread_activation_backward(launch, workspace.data_ptr(),
                                                  static_cast<float*>(sums.data_ptr()), device.stream),
                  "spread_activation_backward");
  return sums;
}
#endif

}  // namespace

void run_spread_activation(const SpreadCall& call, float* energies, int64_t* slots) {
  check_seeds(call);
  expect(spread_plain(call, energies, slots), kMemoryError, kDamagedEdges);
}

}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("spread_activation", TORCH_BOX(&aesg::spread_activation_cuda));
  m.impl("spread_activation_backward", TORCH_BOX(&aesg::spread_activation_backward_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("spread_activation", TORCH_BOX(&aesg::spread_activation_cpu));
  m.impl("spread_activation_backward", TORCH_BOX(&aesg::spread_activation_backward_cpu));
}
