// activate_context as torch sees it: checks, threads, registration. Kernel:
// csrc/ops/cpu/activate_context.cpp.
#include "csrc/ops/cpu/activate_context.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#include "csrc/ops/device.h"
#include "csrc/ops/plain_calls.h"
#include "csrc/ops/spread_args.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kQueriesPerTask = 2;  // a query takes some microseconds

template <typename T>
const T* values_of(const Tensor& t) {
  return static_cast<const T*>(t.data_ptr());
}

void copy_row(const Column<const float>& vectors, int64_t slot, int64_t dim, float* to) {
  if (slot >= 0) {
    std::memcpy(to, vectors.at(slot), sizeof(float) * dim);
  } else {
    std::memset(to, 0, sizeof(float) * dim);
  }
}

struct Arguments : ContextCall {  // and what its pointers point into, contiguous
  std::optional<Tensor> dense_similarities, dense_seeds, bar, primed, primed_ids, primed_energies;
};

// Types and shapes, on every device.
Arguments check(const Tensor& similarities, const Tensor& seeds, const std::optional<Tensor>& bar,
                const std::optional<Tensor>& primed, const std::optional<Tensor>& primed_ids,
                const std::optional<Tensor>& primed_energies, const Tensor& vectors,
                const std::optional<Tensor>& ids, const Tensor& first_block, const Tensor& targets,
                const Tensor& strengths, const Tensor& next_block, const Tensor& active,
                const std::optional<Tensor>& regions, double relative, double priming, int64_t hops,
                double decay, double facilitation, double source_floor, double transfer_floor, int64_t k,
                bool gather, bool jacobian) {
  expect_dense<float>(similarities, "similarities", 2, "[B, S]", kNavigationError);
  expect_dense<int64_t>(seeds, "seeds", 2, "[B, S]", kNavigationError);
  expect_shape(similarities, "similarities", {seeds.size(0), seeds.size(1)});
  expect(k >= 1, kNavigationError, "k: expected an integer >= 1, got ", k);
  Arguments made{};
  made.dense_similarities = dense(similarities);
  made.dense_seeds = dense(seeds);
  made.similarities = values_of<float>(*made.dense_similarities);
  made.seeds = values_of<int64_t>(*made.dense_seeds);
  made.batch = seeds.size(0);
  made.context = {static_cast<float>(relative), seeds.size(1), k, jacobian};
  made.gather = gather;
  made.rules = spread_rules(hops, decay, facilitation, source_floor, transfer_floor);
  made.graph = spread_graph(first_block, targets, strengths, next_block, active, regions, seeds, "seeds");
  const int64_t slots = made.graph.first_block.rows;
  expect(vectors.dim() >= 2, kMemoryError, "vectors: expected shape [N, D] or [G, 1024, D], got ",
         shape_of{vectors});
  made.dim = vectors.size(vectors.dim() - 1);
  made.vectors = column<const float>(vectors, "vectors", made.dim);
  expect(made.vectors.rows == slots, kMemoryError, "vectors: expected ", slots,
         " rows as in first_block, got ", shape_of{vectors});
  if (bar.has_value()) {
    expect_dense<float>(*bar, "bar", 1, "[B]", kNavigationError);
    expect_shape(*bar, "bar", {made.batch});
    made.bar = dense(*bar);
    made.bars = values_of<float>(*made.bar);
  }
  if (!primed.has_value()) return made;
  cpu::Priming& prime = made.priming;
  expect(primed_ids.has_value() && primed_energies.has_value(), kNavigationError,
         "primed: expected ids and energies with the slots, got none");
  expect_dense<int64_t>(*primed, "primed", 2, "[B, P]", kNavigationError);
  expect_dense<int64_t>(*primed_ids, "primed_ids", 2, "[B, P]", kNavigationError);
  expect_dense<float>(*primed_energies, "primed_energies", 2, "[B, P]", kNavigationError);
  prime.count = primed->size(1);
  expect_shape(*primed, "primed", {made.batch, prime.count});
  expect_shape(*primed_ids, "primed_ids", {made.batch, prime.count});
  expect_shape(*primed_energies, "primed_energies", {made.batch, prime.count});
  made.primed = dense(*primed);
  made.primed_ids = dense(*primed_ids);
  made.primed_energies = dense(*primed_energies);
  prime.slots = values_of<int64_t>(*made.primed);
  prime.ids = values_of<int64_t>(*made.primed_ids);
  prime.energies = values_of<float>(*made.primed_energies);
  prime.share = spread_number(priming, "priming");
  if (ids.has_value()) {
    prime.current_id = column<const int64_t>(*ids, "ids", 0);
    expect(prime.current_id.rows == slots, kMemoryError, "ids: expected ", slots,
           " rows as in first_block, got ", shape_of{*ids});
  }
  return made;
}

// Values; the tensors are on the CPU here.
void check_values(const ContextCall& call) {
  const int64_t n = call.batch * call.context.seeds, slots = call.graph.first_block.rows;
  for (int64_t i = 0; i < n; ++i)
    expect(call.seeds[i] >= -1 && call.seeds[i] < slots, kNavigationError, "seeds: expected slots in -1..",
           slots - 1, ", got ", call.seeds[i]);
  expect(all_finite(call.similarities, n), kNavigationError,
         "similarities: expected finite values, got NaN or infinity");
  const cpu::Priming& prime = call.priming;
  for (int64_t i = 0; i < call.batch * prime.count; ++i)
    expect(prime.slots[i] >= -1 && prime.slots[i] < slots && std::isfinite(prime.energies[i]),
           kNavigationError, "primed: expected slots in -1..", slots - 1, " with finite energies, got ",
           prime.slots[i], " with ", prime.energies[i]);
}

// Writes every result, on all threads.
void activate(const ContextCall& call, const ContextResults& to) {
  const int64_t count = call.context.seeds, k = call.context.members, dim = call.dim;
  const bool primed = call.priming.slots != nullptr, jacobian = call.context.jacobian;
  std::atomic<bool> damaged{false};
  torch::stable::parallel_for(0, call.batch, kQueriesPerTask, [&](int64_t begin, int64_t end) {
    static thread_local cpu::ContextFinder finder;  // keeps its memory between calls
    finder.begin_call(call.graph, call.rules);
    for (int64_t b = begin; b < end; ++b) {
      finder.run(call.graph, call.rules, call.context, call.priming, call.similarities + b * count,
                 call.seeds + b * count, call.bars != nullptr ? call.bars[b] : 0.0f, primed ? b : -1,
                 {to.similarities + b * count, to.seeds + b * count, to.energies + b * k, to.members + b * k,
                  jacobian ? to.jacobian + b * k * count : nullptr});
      if (call.gather)
        for (int64_t i = b * k; i < (b + 1) * k; ++i)
          copy_row(call.vectors, to.members[i], dim, to.vectors + i * dim);
      if (jacobian)
        for (int64_t s = b * count; s < (b + 1) * count; ++s)
          copy_row(call.vectors, to.seeds[s], dim, to.seed_vectors + s * dim);
    }
    if (finder.take_damage()) damaged = true;
  });
  expect(!damaged, kMemoryError, kDamagedEdges);
}

struct Outputs {
  Tensor seeds, similarities, members, energies, vectors, jacobian, seed_vectors;

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> all() const {
    return {seeds, similarities, members, energies, vectors, jacobian, seed_vectors};
  }
  ContextResults pointers() const {
    return {static_cast<int64_t*>(seeds.data_ptr()),     static_cast<float*>(similarities.data_ptr()),
            static_cast<int64_t*>(members.data_ptr()),   static_cast<float*>(energies.data_ptr()),
            static_cast<float*>(vectors.data_ptr()),     static_cast<float*>(jacobian.data_ptr()),
            static_cast<float*>(seed_vectors.data_ptr())};
  }
};

// Everything uninitialised.
Outputs make_outputs(const ContextCall& call, const Tensor& like) {
  const int64_t batch = call.batch, count = call.context.seeds, k = call.context.members, dim = call.dim;
  const auto make = [&](std::initializer_list<int64_t> sizes, ScalarType type) {
    return make_tensor(like, sizes, type);
  };
  return {make({batch, count}, ScalarType::Long),
          make({batch, count}, ScalarType::Float),
          make({batch, k}, ScalarType::Long),
          make({batch, k}, ScalarType::Float),
          make({call.gathered(), k, dim}, ScalarType::Float),
          make({call.traced(), k, count}, ScalarType::Float),
          make({call.traced(), count, dim}, ScalarType::Float)};
}

// For similarities and slots [B, S] of a search: those that count as seeds (others 0 and -1), the context's
// slots and energies [B, K], its vectors [B, K, D] (empty unless `gather`); and, with `jacobian`, d energy /
// d similarity [B, K, S] and the seeds' vectors [B, S, D] (else empty).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> activate_context_cpu(
    const Tensor& similarities, const Tensor& seeds, std::optional<Tensor> bar, std::optional<Tensor> primed,
    std::optional<Tensor> primed_ids, std::optional<Tensor> primed_energies, const Tensor& vectors,
    std::optional<Tensor> ids, const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
    const Tensor& next_block, const Tensor& active, std::optional<Tensor> regions, double relative,
    double priming, int64_t hops, double decay, double facilitation, double source_floor,
    double transfer_floor, int64_t k, bool gather, bool jacobian) {
  const Arguments a = check(similarities, seeds, bar, primed, primed_ids, primed_energies, vectors, ids,
                            first_block, targets, strengths, next_block, active, regions, relative, priming,
                            hops, decay, facilitation, source_floor, transfer_floor, k, gather, jacobian);
  check_values(a);
  const Outputs out = make_outputs(a, seeds);
  activate(a, out.pointers());
  return out.all();
}

#if defined(AESG_WITH_CUDA)
// Does not wait for the device: what is not finite or lies outside the graph counts as none, damaged chains
// end where they leave it.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> activate_context_cuda(
    const Tensor& similarities, const Tensor& seeds, std::optional<Tensor> bar, std::optional<Tensor> primed,
    std::optional<Tensor> primed_ids, std::optional<Tensor> primed_energies, const Tensor& vectors,
    std::optional<Tensor> ids, const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
    const Tensor& next_block, const Tensor& active, std::optional<Tensor> regions, double relative,
    double priming, int64_t hops, double decay, double facilitation, double source_floor,
    double transfer_floor, int64_t k, bool gather, bool jacobian) {
  expect_same_device(similarities, "similarities", seeds, "seeds");
  expect_same_device(vectors, "vectors", seeds, "seeds");
  for (const auto& [tensor, name] : {std::pair{&bar, "bar"},
                                     {&primed, "primed"},
                                     {&primed_ids, "primed_ids"},
                                     {&primed_energies, "primed_energies"},
                                     {&ids, "ids"}})
    if (tensor->has_value()) expect_same_device(**tensor, name, seeds, "seeds");
  const Arguments a = check(similarities, seeds, bar, primed, primed_ids, primed_energies, vectors, ids,
                            first_block, targets, strengths, next_block, active, regions, relative, priming,
                            hops, decay, facilitation, source_floor, transfer_floor, k, gather, jacobian);
  expect_k(k, a.batch);
  expect(k <= gpu::kMostK, kNavigationError, "k: expected at most ", gpu::kMostK, " on a CUDA device, got ",
         k);
  expect(a.context.seeds <= gpu::kMostK, kNavigationError, "seeds: expected at most ", gpu::kMostK,
         " a query on a CUDA device, got ", a.context.seeds);
  const cpu::Priming& prime = a.priming;
  const gpu::ActivateContext launch{a.similarities,
                                    a.seeds,
                                    a.bars,
                                    a.batch,
                                    a.context.seeds,
                                    prime.slots,
                                    prime.ids,
                                    prime.energies,
                                    prime.current_id,
                                    prime.count,
                                    prime.share,
                                    a.vectors,
                                    a.dim,
                                    on_device(a.graph),
                                    on_device(a.rules),
                                    a.context.relative,
                                    k,
                                    jacobian};
  const OnDevice device(seeds);
  const Outputs out = make_outputs(a, seeds);
  const ContextResults to = out.pointers();
  Tensor workspace = make_workspace(seeds, gpu::activate_context_workspace(launch));
  expect_launched(gpu::activate_context(launch, workspace.data_ptr(),
                                        {to.seeds, to.similarities, to.members, to.energies,
                                         gather ? to.vectors : nullptr, to.jacobian, to.seed_vectors},
                                        device.stream),
                  "activate_context");
  return out.all();
}
#endif

}  // namespace

void run_activate_context(const ContextCall& call, const ContextResults& results) {
  check_values(call);
  activate(call, results);
}

}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("activate_context", TORCH_BOX(&aesg::activate_context_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("activate_context", TORCH_BOX(&aesg::activate_context_cpu));
}
