// seed_search as torch sees it: checks, threads, registration. The kernel is csrc/ops/cpu/seed_search.cpp.
#include "csrc/ops/cpu/seed_search.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "csrc/ops/device.h"
#include "csrc/ops/plain_calls.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

// Multiply-adds below which another thread costs more than it saves (about 10 us of work).
constexpr int64_t kWorkPerThread = int64_t{1} << 18;

struct Arguments {
  Tensor queries;  // contiguous
  cpu::SeedSearch job;
};

// All checks, before any work; also those that hold on every device.
Arguments check(const Tensor& queries, const Tensor& vectors, int64_t k,
                const std::optional<Tensor>& inv_norm, const std::optional<Tensor>& active,
                std::optional<int64_t> count, double min_score, bool exact) {
  expect_dense<float>(queries, "queries", 2, "[B, D]", kNavigationError);
  const int64_t batch = queries.size(0), dim = queries.size(1);
  expect(dim >= 1, kNavigationError, "queries: expected D >= 1, got shape ", shape_of{queries});
  expect_same_device(vectors, "vectors", queries, "queries");
  expect(vectors.dim() < 2 || vectors.size(vectors.dim() - 1) == dim, kNavigationError,
         "queries: expected dimension ", vectors.dim() < 2 ? 0 : vectors.size(vectors.dim() - 1),
         " as in vectors, got ", dim);
  expect_k(k, batch);
  expect(min_score == min_score, kNavigationError, "min_score: expected a number, got NaN");
  const auto rows = column<const float>(vectors, "vectors", dim);
  const int64_t used = count.value_or(rows.rows);
  expect(used >= 0 && used <= rows.rows, kMemoryError, "count: expected 0..", rows.rows, ", got ", used);

  Arguments made{dense(queries), {}};
  made.job = {static_cast<const float*>(made.queries.data_ptr()),
              batch,
              dim,
              rows,
              optional_column<const float>(inv_norm, "inv_norm", rows.rows, vectors, "vectors"),
              optional_column<const uint8_t>(active, "active", rows.rows, vectors, "vectors"),
              used,
              static_cast<float>(min_score),
              exact};
  return made;
}

// Values of the queries; their tensor is on the CPU here.
void check_values(const cpu::SeedSearch& job) {
  expect(all_finite(job.queries, job.batch * job.dim), kNavigationError,
         "queries: expected finite values, got NaN or infinity");
}

bool is_zero(const float* query, int64_t dim) {
  return std::all_of(query, query + dim, [](float x) { return x == 0.0f; });
}

// Writes [B, k] of both, on all threads.
void search(const cpu::SeedSearch& whole, int64_t k, float* score, int64_t* slot) {
  // Zeros at the end, as pack_rows leaves them, are like nothing: similarity 0.
  cpu::SeedSearch job = whole;
  while (job.min_score > 0 && job.batch > 0 && is_zero(job.queries + (job.batch - 1) * job.dim, job.dim))
    --job.batch;
  std::fill(score + job.batch * k, score + whole.batch * k, 0.0f);
  std::fill(slot + job.batch * k, slot + whole.batch * k, int64_t{-1});
  if (job.batch == 0) return;
  static thread_local std::vector<float> packed;  // kept between calls
  packed.resize(std::max(packed.size(), static_cast<size_t>(job.batch * job.dim)));
  cpu::seed_search_prepare(job, packed.data());

  // A grid of row ranges x query ranges: rows first (each panel is then packed once), queries when the rows
  // are too few for all threads.
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t work = job.count * job.dim * job.batch / kWorkPerThread;
  const int64_t threads = std::clamp<int64_t>(work, 1, torch::stable::get_num_threads());
  const int64_t panel_rows = cpu::seed_search_panel_rows(),
                chunk = cpu::seed_search_query_chunk(job.dim, job.batch);
  const int64_t panels = std::max<int64_t>(1, ceil_div(job.count, panel_rows));
  const int64_t row_parts = std::clamp<int64_t>(panels / 8, 1, threads);
  const int64_t chunks = ceil_div(job.batch, chunk);
  const int64_t query_parts = std::clamp<int64_t>(threads / row_parts, 1, chunks);
  const int64_t rows_each = ceil_div(panels, row_parts) * panel_rows;
  const int64_t queries_each = ceil_div(chunks, query_parts) * chunk;

  static thread_local std::vector<cpu::TopK> best;
  const size_t tops = static_cast<size_t>(row_parts * job.batch);
  if (best.size() < tops) best.resize(tops);
  for (size_t i = 0; i < tops; ++i) best[i].reset(std::min(k, job.count));

  const float* queries_packed = packed.data();
  cpu::TopK* tops_begin = best.data();
  torch::stable::parallel_for(0, row_parts * query_parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t row_part = part / query_parts;
      const int64_t first_row = row_part * rows_each, first_query = part % query_parts * queries_each;
      cpu::seed_search_range(job, queries_packed, first_query,
                             std::min(first_query + queries_each, job.batch), first_row,
                             std::min(first_row + rows_each, job.count), tops_begin + row_part * job.batch);
    }
  });

  for (int64_t b = 0; b < job.batch; ++b) {
    for (int64_t part = 1; part < row_parts; ++part) best[b].merge(best[part * job.batch + b]);
    const auto& found = best[b].sorted();
    for (int64_t i = 0; i < k; ++i) {
      const bool there = i < static_cast<int64_t>(found.size());
      *score++ = there ? found[i].score : 0.0f;
      *slot++ = there ? found[i].slot : -1;
    }
  }
}

// [B, k] scores f32 and slots i64, best first, ties lower slot first, padded with 0 and -1.
std::tuple<Tensor, Tensor> seed_search_cpu(const Tensor& queries, const Tensor& vectors, int64_t k,
                                           std::optional<Tensor> inv_norm, std::optional<Tensor> active,
                                           std::optional<int64_t> count, double min_score, bool exact) {
  const Arguments arguments = check(queries, vectors, k, inv_norm, active, count, min_score, exact);
  const cpu::SeedSearch& job = arguments.job;
  check_values(job);
  Tensor scores = make_tensor(queries, {job.batch, k}, ScalarType::Float);
  Tensor slots = make_tensor(queries, {job.batch, k}, ScalarType::Long);
  search(job, k, static_cast<float*>(scores.data_ptr()), static_cast<int64_t*>(slots.data_ptr()));
  return {scores, slots};
}

#if defined(AESG_WITH_CUDA)
// Does not wait for the device: a query that is not finite finds nothing instead of raising.
std::tuple<Tensor, Tensor> seed_search_cuda(const Tensor& queries, const Tensor& vectors, int64_t k,
                                            std::optional<Tensor> inv_norm, std::optional<Tensor> active,
                                            std::optional<int64_t> count, double min_score, bool exact) {
  const Arguments arguments = check(queries, vectors, k, inv_norm, active, count, min_score, exact);
  expect(k <= gpu::kMostK, kNavigationError, "k: expected at most ", gpu::kMostK, " on a CUDA device, got ",
         k);
  const cpu::SeedSearch& job = arguments.job;
  const gpu::SeedSearch launch{job.queries, job.batch, job.dim,       job.vectors, job.inv_norm,
                               job.active,  job.count, job.min_score, k,           job.exact};
  const OnDevice device(queries);
  Tensor scores = make_tensor(queries, {job.batch, k}, ScalarType::Float);
  Tensor slots = make_tensor(queries, {job.batch, k}, ScalarType::Long);
  Tensor workspace = make_workspace(queries, gpu::seed_search_workspace(launch));
  expect_launched(gpu::seed_search(launch, workspace.data_ptr(), static_cast<float*>(scores.data_ptr()),
                                   static_cast<int64_t*>(slots.data_ptr()), device.stream),
                  "seed_search");
  return {scores, slots};
}
#endif

}  // namespace

void run_seed_search(const cpu::SeedSearch& job, int64_t k, float* scores, int64_t* slots) {
  check_values(job);
  search(job, k, scores, slots);
}

}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("seed_search", TORCH_BOX(&aesg::seed_search_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("seed_search", TORCH_BOX(&aesg::seed_search_cpu)); }
