// activate_context and replay_energies as torch sees them: checks, threads, registration. Kernel:
// csrc/ops/cpu/activate_context.cpp.
#include "csrc/ops/cpu/activate_context.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

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
  expect_dense<float>(similarities, "similarities", 2, "[B, S]", kNavigationError);
  expect_dense<int64_t>(seeds, "seeds", 2, "[B, S]", kNavigationError);
  const int64_t batch = seeds.size(0), count = seeds.size(1);
  expect_shape(similarities, "similarities", {batch, count});
  expect(k >= 1, kNavigationError, "k: expected an integer >= 1, got ", k);
  const cpu::SpreadRules rules = spread_rules(hops, decay, facilitation, source_floor, transfer_floor);
  const cpu::SpreadGraph graph =
      spread_graph(first_block, targets, strengths, next_block, active, regions, seeds, "seeds");
  const int64_t slots = graph.first_block.rows;
  expect(vectors.dim() >= 2, kMemoryError, "vectors: expected shape [N, D] or [G, 1024, D], got ",
         shape_of{vectors});
  const int64_t dim = vectors.size(vectors.dim() - 1);
  const auto rows = column<const float>(vectors, "vectors", dim);
  expect(rows.rows == slots, kMemoryError, "vectors: expected ", slots, " rows as in first_block, got ",
         shape_of{vectors});

  const Tensor dense_seeds = dense(seeds), dense_similarities = dense(similarities);
  const auto* seed = values_of<int64_t>(dense_seeds);
  const auto* similarity = values_of<float>(dense_similarities);
  for (int64_t i = 0; i < batch * count; ++i)
    expect(seed[i] >= -1 && seed[i] < slots, kNavigationError, "seeds: expected slots in -1..", slots - 1,
           ", got ", seed[i]);
  expect(all_finite(similarity, batch * count), kNavigationError,
         "similarities: expected finite values, got NaN or infinity");
  Tensor dense_bar;
  if (bar.has_value()) {
    expect_dense<float>(*bar, "bar", 1, "[B]", kNavigationError);
    expect_shape(*bar, "bar", {batch});
    dense_bar = dense(*bar);
  }
  const float* bars = bar.has_value() ? values_of<float>(dense_bar) : nullptr;

  cpu::Priming prime;
  Tensor dense_primed, dense_ids, dense_energies;
  if (primed.has_value()) {
    expect(primed_ids.has_value() && primed_energies.has_value(), kNavigationError,
           "primed: expected ids and energies with the slots, got none");
    expect_dense<int64_t>(*primed, "primed", 2, "[B, P]", kNavigationError);
    expect_dense<int64_t>(*primed_ids, "primed_ids", 2, "[B, P]", kNavigationError);
    expect_dense<float>(*primed_energies, "primed_energies", 2, "[B, P]", kNavigationError);
    prime.count = primed->size(1);
    expect_shape(*primed, "primed", {batch, prime.count});
    expect_shape(*primed_ids, "primed_ids", {batch, prime.count});
    expect_shape(*primed_energies, "primed_energies", {batch, prime.count});
    dense_primed = dense(*primed);
    dense_ids = dense(*primed_ids);
    dense_energies = dense(*primed_energies);
    prime.slots = values_of<int64_t>(dense_primed);
    prime.ids = values_of<int64_t>(dense_ids);
    prime.energies = values_of<float>(dense_energies);
    prime.share = spread_number(priming, "priming");
    if (ids.has_value()) {
      prime.current_id = column<const int64_t>(*ids, "ids", 0);
      expect(prime.current_id.rows == slots, kMemoryError, "ids: expected ", slots,
             " rows as in first_block, got ", shape_of{*ids});
    }
    for (int64_t i = 0; i < batch * prime.count; ++i)
      expect(prime.slots[i] >= -1 && prime.slots[i] < slots && std::isfinite(prime.energies[i]),
             kNavigationError, "primed: expected slots in -1..", slots - 1, " with finite energies, got ",
             prime.slots[i], " with ", prime.energies[i]);
  }

  Tensor out_seeds = make_tensor(seeds, {batch, count}, ScalarType::Long);
  Tensor out_similarities = make_tensor(seeds, {batch, count}, ScalarType::Float);
  Tensor members = make_tensor(seeds, {batch, k}, ScalarType::Long);
  Tensor energies = make_tensor(seeds, {batch, k}, ScalarType::Float);
  Tensor found = make_tensor(seeds, {gather ? batch : 0, k, dim}, ScalarType::Float);
  Tensor slopes = make_tensor(seeds, {jacobian ? batch : 0, k, count}, ScalarType::Float);
  Tensor seed_vectors = make_tensor(seeds, {jacobian ? batch : 0, count, dim}, ScalarType::Float);
  auto* out_seed = static_cast<int64_t*>(out_seeds.data_ptr());
  auto* out_similarity = static_cast<float*>(out_similarities.data_ptr());
  auto* member = static_cast<int64_t*>(members.data_ptr());
  auto* energy = static_cast<float*>(energies.data_ptr());
  auto* vector = static_cast<float*>(found.data_ptr());
  auto* slope = static_cast<float*>(slopes.data_ptr());
  auto* seed_vector = static_cast<float*>(seed_vectors.data_ptr());
  const cpu::ContextRules context{static_cast<float>(relative), count, k, jacobian};
  std::atomic<bool> damaged{false};
  torch::stable::parallel_for(0, batch, kQueriesPerTask, [&](int64_t begin, int64_t end) {
    static thread_local cpu::ContextFinder finder;  // keeps its memory between calls
    finder.begin_call(graph, rules);
    for (int64_t b = begin; b < end; ++b) {
      finder.run(graph, rules, context, prime, similarity + b * count, seed + b * count,
                 bars != nullptr ? bars[b] : 0.0f, prime.slots != nullptr ? b : -1,
                 {out_similarity + b * count, out_seed + b * count, energy + b * k, member + b * k,
                  jacobian ? slope + b * k * count : nullptr});
      if (gather)
        for (int64_t i = 0; i < k; ++i) copy_row(rows, member[b * k + i], dim, vector + (b * k + i) * dim);
      if (jacobian)
        for (int64_t s = 0; s < count; ++s)
          copy_row(rows, out_seed[b * count + s], dim, seed_vector + (b * count + s) * dim);
    }
    if (finder.take_damage()) damaged = true;
  });
  expect(!damaged, kMemoryError, kDamagedEdges);
  return {out_seeds, out_similarities, members, energies, found, slopes, seed_vectors};
}

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

STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("activate_context", TORCH_BOX(&aesg::activate_context_cpu));
  m.impl("replay_energies", TORCH_BOX(&aesg::replay_energies_cpu));
  m.impl("replay_energies_backward", TORCH_BOX(&aesg::replay_energies_backward_cpu));
}
