// activate_context and replay_energies as torch sees them: checks, threads, registration. Kernel:
// csrc/ops/cpu/activate_context.cpp.
#include "csrc/ops/cpu/activate_context.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#include "csrc/ops/device.h"
#include "csrc/ops/seed_search_math.h"
#include "csrc/ops/spread_args.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kQueriesPerTask = 2;  // a query takes some microseconds

void expect_shape(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
  bool fits = t.dim() == static_cast<int64_t>(sizes.size());
  for (int64_t i = 0; fits && i < t.dim(); ++i) fits = t.size(i) == sizes.begin()[i];
  std::ostringstream wanted;
  if (!fits)
    for (const int64_t size : sizes) wanted << (wanted.tellp() > 0 ? ", " : "") << size;
  expect(fits, kNavigationError, name, ": expected shape [", wanted.str(), "], got ", shape_of{t});
}

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

struct Arguments {
  Tensor similarities, seeds;  // contiguous, as all here
  std::optional<Tensor> bar = {}, primed = {}, primed_ids = {}, primed_energies = {};
  int64_t batch = 0, count = 0, slots = 0, dim = 0;
  cpu::SpreadGraph graph = {};
  cpu::SpreadRules rules = {};
  cpu::Priming priming = {};
  Column<const float> vectors = {};

  const float* bars() const { return bar.has_value() ? values_of<float>(*bar) : nullptr; }
};

// Types and shapes, on every device.
Arguments check(const Tensor& similarities, const Tensor& seeds, const std::optional<Tensor>& bar,
                const std::optional<Tensor>& primed, const std::optional<Tensor>& primed_ids,
                const std::optional<Tensor>& primed_energies, const Tensor& vectors,
                const std::optional<Tensor>& ids, const Tensor& first_block, const Tensor& targets,
                const Tensor& strengths, const Tensor& next_block, const Tensor& active,
                const std::optional<Tensor>& regions, double priming, int64_t hops, double decay,
                double facilitation, double source_floor, double transfer_floor, int64_t k) {
  expect_dense<float>(similarities, "similarities", 2, "[B, S]", kNavigationError);
  expect_dense<int64_t>(seeds, "seeds", 2, "[B, S]", kNavigationError);
  expect_shape(similarities, "similarities", {seeds.size(0), seeds.size(1)});
  expect(k >= 1, kNavigationError, "k: expected an integer >= 1, got ", k);
  Arguments made{dense(similarities), dense(seeds)};
  made.batch = seeds.size(0);
  made.count = seeds.size(1);
  made.rules = spread_rules(hops, decay, facilitation, source_floor, transfer_floor);
  made.graph = spread_graph(first_block, targets, strengths, next_block, active, regions, seeds, "seeds");
  made.slots = made.graph.first_block.rows;
  expect(vectors.dim() >= 2, kMemoryError, "vectors: expected shape [N, D] or [G, 1024, D], got ",
         shape_of{vectors});
  made.dim = vectors.size(vectors.dim() - 1);
  made.vectors = column<const float>(vectors, "vectors", made.dim);
  expect(made.vectors.rows == made.slots, kMemoryError, "vectors: expected ", made.slots,
         " rows as in first_block, got ", shape_of{vectors});
  if (bar.has_value()) {
    expect_dense<float>(*bar, "bar", 1, "[B]", kNavigationError);
    expect_shape(*bar, "bar", {made.batch});
    made.bar = dense(*bar);
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
    expect(prime.current_id.rows == made.slots, kMemoryError, "ids: expected ", made.slots,
           " rows as in first_block, got ", shape_of{*ids});
  }
  return made;
}

// Values; the tensors are on the CPU here.
void check_values(const Arguments& arguments) {
  const auto* seed = values_of<int64_t>(arguments.seeds);
  const int64_t n = arguments.batch * arguments.count, slots = arguments.slots;
  for (int64_t i = 0; i < n; ++i)
    expect(seed[i] >= -1 && seed[i] < slots, kNavigationError, "seeds: expected slots in -1..", slots - 1,
           ", got ", seed[i]);
  expect(all_finite(values_of<float>(arguments.similarities), n), kNavigationError,
         "similarities: expected finite values, got NaN or infinity");
  const cpu::Priming& prime = arguments.priming;
  for (int64_t i = 0; i < arguments.batch * prime.count; ++i)
    expect(prime.slots[i] >= -1 && prime.slots[i] < slots && std::isfinite(prime.energies[i]),
           kNavigationError, "primed: expected slots in -1..", slots - 1, " with finite energies, got ",
           prime.slots[i], " with ", prime.energies[i]);
}

struct Outputs {
  Tensor seeds, similarities, members, energies, vectors, jacobian, seed_vectors;

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> all() const {
    return {seeds, similarities, members, energies, vectors, jacobian, seed_vectors};
  }
};

// Everything uninitialised.
Outputs make_outputs(const Arguments& arguments, int64_t k, bool gather, bool jacobian) {
  const int64_t batch = arguments.batch, count = arguments.count, dim = arguments.dim;
  const auto make = [&](std::initializer_list<int64_t> sizes, ScalarType type) {
    return make_tensor(arguments.seeds, sizes, type);
  };
  const int64_t found = gather ? batch : 0, traced = jacobian ? batch : 0;
  return {make({batch, count}, ScalarType::Long),       make({batch, count}, ScalarType::Float),
          make({batch, k}, ScalarType::Long),           make({batch, k}, ScalarType::Float),
          make({found, k, dim}, ScalarType::Float),     make({traced, k, count}, ScalarType::Float),
          make({traced, count, dim}, ScalarType::Float)};
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
                            first_block, targets, strengths, next_block, active, regions, priming, hops,
                            decay, facilitation, source_floor, transfer_floor, k);
  check_values(a);
  const int64_t batch = a.batch, count = a.count, dim = a.dim;
  const auto* seed = values_of<int64_t>(a.seeds);
  const auto* similarity = values_of<float>(a.similarities);
  const float* bars = a.bars();
  const Outputs out = make_outputs(a, k, gather, jacobian);
  auto* out_seed = static_cast<int64_t*>(out.seeds.data_ptr());
  auto* out_similarity = static_cast<float*>(out.similarities.data_ptr());
  auto* member = static_cast<int64_t*>(out.members.data_ptr());
  auto* energy = static_cast<float*>(out.energies.data_ptr());
  auto* vector = static_cast<float*>(out.vectors.data_ptr());
  auto* slope = static_cast<float*>(out.jacobian.data_ptr());
  auto* seed_vector = static_cast<float*>(out.seed_vectors.data_ptr());
  const cpu::ContextRules context{static_cast<float>(relative), count, k, jacobian};
  std::atomic<bool> damaged{false};
  torch::stable::parallel_for(0, batch, kQueriesPerTask, [&](int64_t begin, int64_t end) {
    static thread_local cpu::ContextFinder finder;  // keeps its memory between calls
    finder.begin_call(a.graph, a.rules);
    for (int64_t b = begin; b < end; ++b) {
      finder.run(a.graph, a.rules, context, a.priming, similarity + b * count, seed + b * count,
                 bars != nullptr ? bars[b] : 0.0f, a.primed.has_value() ? b : -1,
                 {out_similarity + b * count, out_seed + b * count, energy + b * k, member + b * k,
                  jacobian ? slope + b * k * count : nullptr});
      if (gather)
        for (int64_t i = 0; i < k; ++i)
          copy_row(a.vectors, member[b * k + i], dim, vector + (b * k + i) * dim);
      if (jacobian)
        for (int64_t s = 0; s < count; ++s)
          copy_row(a.vectors, out_seed[b * count + s], dim, seed_vector + (b * count + s) * dim);
    }
    if (finder.take_damage()) damaged = true;
  });
  expect(!damaged, kMemoryError, kDamagedEdges);
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
  expect(!jacobian, kNavigationError,
         "jacobian: expected False on a CUDA device, where contexts have no derivative, got True");
  expect_same_device(similarities, "similarities", seeds, "seeds");
  expect_same_device(vectors, "vectors", seeds, "seeds");
  for (const auto& [tensor, name] : {std::pair{&bar, "bar"},
                                     {&primed, "primed"},
                                     {&primed_ids, "primed_ids"},
                                     {&primed_energies, "primed_energies"},
                                     {&ids, "ids"}})
    if (tensor->has_value()) expect_same_device(**tensor, name, seeds, "seeds");
  const Arguments a = check(similarities, seeds, bar, primed, primed_ids, primed_energies, vectors, ids,
                            first_block, targets, strengths, next_block, active, regions, priming, hops,
                            decay, facilitation, source_floor, transfer_floor, k);
  expect_k(k, a.batch);
  expect(k <= gpu::kMostK, kNavigationError, "k: expected at most ", gpu::kMostK, " on a CUDA device, got ",
         k);
  expect(a.count <= gpu::kMostK, kNavigationError, "seeds: expected at most ", gpu::kMostK,
         " a query on a CUDA device, got ", a.count);
  const cpu::Priming& prime = a.priming;
  const gpu::ActivateContext launch{values_of<float>(a.similarities),
                                    values_of<int64_t>(a.seeds),
                                    a.bars(),
                                    a.batch,
                                    a.count,
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
                                    static_cast<float>(relative),
                                    k};
  const OnDevice device(seeds);
  const Outputs out = make_outputs(a, k, gather, false);
  Tensor workspace = make_workspace(seeds, gpu::activate_context_workspace(launch));
  expect_launched(
      gpu::activate_context(
          launch, workspace.data_ptr(),
          {static_cast<int64_t*>(out.seeds.data_ptr()), static_cast<float*>(out.similarities.data_ptr()),
           static_cast<int64_t*>(out.members.data_ptr()), static_cast<float*>(out.energies.data_ptr()),
           gather ? static_cast<float*>(out.vectors.data_ptr()) : nullptr},
          device.stream),
      "activate_context");
  return out.all();
}
#endif

// The energies again, a tensor of their own.
Tensor replay_energies_cpu(const Tensor& queries, const Tensor& energies, const Tensor& seeds,
                           const Tensor& similarities, const Tensor& jacobian, const Tensor& seed_vectors) {
  expect_dense<float>(queries, "queries", 2, "[B, D]", kNavigationError);
  expect_dense<float>(energies, "energies", 2, "[B, K]", kNavigationError);
  expect_dense<int64_t>(seeds, "seeds", 2, "[B, S]", kNavigationError);
  const int64_t batch = queries.size(0), k = energies.size(1), count = seeds.size(1);
  expect_shape(energies, "energies", {batch, k});
  expect_shape(seeds, "seeds", {batch, count});
  expect_shape(similarities, "similarities", {batch, count});
  expect_shape(jacobian, "jacobian", {batch, k, count});
  expect_shape(seed_vectors, "seed_vectors", {batch, count, queries.size(1)});
  for (const Tensor* t : {&similarities, &jacobian, &seed_vectors}) expect_type<float>(*t, "replay");
  Tensor out = make_tensor(energies, {batch, k}, ScalarType::Float);
  const Tensor from = dense(energies);
  std::memcpy(out.data_ptr(), from.data_ptr(), sizeof(float) * batch * k);
  return out;
}

// d loss / d queries [B, D] from d loss / d energies [B, K]. With q, v scaled to length 1:
// d cos / d q = (v - cos q) / |q|.
Tensor replay_energies_backward_cpu(const Tensor& gradients, const Tensor& queries, const Tensor& seeds,
                                    const Tensor& similarities, const Tensor& jacobian,
                                    const Tensor& seed_vectors) {
  const int64_t batch = queries.size(0), dim = queries.size(1), k = gradients.size(1), count = seeds.size(1);
  expect_dense<float>(gradients, "gradients", 2, "[B, K]", kNavigationError);
  expect_shape(gradients, "gradients", {batch, k});
  expect_shape(jacobian, "jacobian", {batch, k, count});
  const Tensor gradient = dense(gradients), query = dense(queries), seed = dense(seeds),
               similarity = dense(similarities), slopes = dense(jacobian), rows = dense(seed_vectors);
  Tensor out = make_tensor(queries, {batch, dim}, ScalarType::Float);
  auto* to_all = static_cast<float*>(out.data_ptr());
  const auto inverse = [dim](const float* v) {
    double sum = 0;
    for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(v[d]) * v[d];
    return inverse_norm(sum);
  };
  torch::stable::parallel_for(0, batch, 64, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float* g = values_of<float>(gradient) + b * k;
      const float* q = values_of<float>(query) + b * dim;
      float* to = to_all + b * dim;
      const float inverse_query = inverse(q);
      float along = 0.0f;  // what goes against the query itself
      std::fill_n(to, dim, 0.0f);
      for (int64_t s = 0; s < count; ++s) {
        if (values_of<int64_t>(seed)[b * count + s] < 0) continue;
        float sum = 0.0f;
        for (int64_t i = 0; i < k; ++i) sum += g[i] * values_of<float>(slopes)[(b * k + i) * count + s];
        if (sum == 0.0f) continue;
        const float* v = values_of<float>(rows) + (b * count + s) * dim;
        const float scale = sum * inverse(v);
        for (int64_t d = 0; d < dim; ++d) to[d] += scale * v[d];
        along += sum * values_of<float>(similarity)[b * count + s];
      }
      along *= inverse_query;
      for (int64_t d = 0; d < dim; ++d) to[d] = (to[d] - along * q[d]) * inverse_query;
    }
  });
  return out;
}

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("activate_context", TORCH_BOX(&aesg::activate_context_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("activate_context", TORCH_BOX(&aesg::activate_context_cpu));
  m.impl("replay_energies", TORCH_BOX(&aesg::replay_energies_cpu));
  m.impl("replay_energies_backward", TORCH_BOX(&aesg::replay_energies_backward_cpu));
}
