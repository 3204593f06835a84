// region_search and region_add_ as torch sees them: checks, threads, registration. Kernels:
// csrc/ops/cpu/region_search.cpp.
#include "csrc/ops/cpu/region_search.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "csrc/ops/plain_calls.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kQueriesPerTask = 1;  // a query takes some microseconds
constexpr int64_t kRowsPerTask = 64;

void expect_sizes(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes) {
  bool good = t.dim() == static_cast<int64_t>(sizes.size()) && t.is_contiguous();
  int64_t i = 0;
  for (const int64_t size : sizes) {
    good = good && t.size(i) == size;
    ++i;
  }
  if (__builtin_expect(good, 1)) return;
  std::ostringstream wanted;
  i = 0;
  for (const int64_t size : sizes) wanted << (i++ ? ", " : "") << size;
  expect(false, kMemoryError, name, ": expected contiguous [", wanted.str(), "], got ", shape_of{t});
}

cpu::Panels check_panels(const Tensor& panels, const char* name, int64_t dim) {
  expect_type<uint8_t>(panels, name);
  const int64_t bytes = cpu::panel_bytes(dim);
  expect_sizes(panels, name, {panels.dim() == 0 ? 0 : panels.size(0), bytes});
  auto* base = static_cast<uint8_t*>(panels.data_ptr());
  expect(reinterpret_cast<uintptr_t>(base) % alignof(int32_t) == 0, kMemoryError, name,
         ": expected memory aligned to 4 bytes");
  return {panels.size(0), bytes, base};
}

// Panels of centres have the numbers of the R cells in order.
cpu::Panels check_centers(const Tensor& centers, int64_t cells, int64_t dim) {
  const cpu::Panels made = check_panels(centers, "centers", dim);
  expect(made.count == cpu::panels_of(cells), kMemoryError, "centers: expected panels of ", cells,
         " centres, got ", shape_of{centers});
  return made;
}

// Values of the queries; their tensor is on the CPU here.
void check_values(const cpu::RegionSearch& job) {
  expect(all_finite(job.queries, job.batch * job.dim), kNavigationError,
         "queries: expected finite values, got NaN or infinity");
}

// Writes [B, k] of both, on all threads.
void search(const cpu::RegionSearch& job, float* scores, int64_t* slots) {
  const int64_t k = job.k;
  std::atomic<bool> sound{true};
  torch::stable::parallel_for(0, job.batch, kQueriesPerTask, [&](int64_t begin, int64_t end) {
    static thread_local cpu::RegionSearcher searcher;  // keeps its memory between calls
    for (int64_t b = begin; b < end; ++b)
      if (!searcher.run(job, b, scores + b * k, slots + b * k)) sound = false;
  });
  expect(sound, kMemoryError,
         "cells: expected panels and slots inside the index and the graph, got damaged ones");
}

// [B, k] scores f32 and slots i64, best first, ties lower slot first, padded with 0 and -1.
std::tuple<Tensor, Tensor> region_search_cpu(const Tensor& queries, const Tensor& vectors, int64_t k,
                                             const Tensor& inv_norm, const Tensor& active,
                                             const Tensor& centers, const Tensor& heads, const Tensor& panels,
                                             const Tensor& pending, int64_t probes, int64_t pool,
                                             double min_score) {
  expect_dense<float>(queries, "queries", 2, "[B, D]", kNavigationError);
  const int64_t batch = queries.size(0), dim = queries.size(1);
  expect(dim >= 1, kNavigationError, "queries: expected D >= 1, got shape ", shape_of{queries});
  expect(vectors.dim() >= 2 && vectors.size(vectors.dim() - 1) == dim, kNavigationError,
         "queries: expected dimension ", vectors.dim() < 2 ? 0 : vectors.size(vectors.dim() - 1),
         " as in vectors, got ", dim);
  expect_k(k, batch);
  expect(probes >= 0, kNavigationError, "probes: expected an integer >= 0, got ", probes);
  expect(pool >= 1, kNavigationError, "pool: expected an integer >= 1, got ", pool);
  expect(min_score == min_score, kNavigationError, "min_score: expected a number, got NaN");
  for (const auto& [tensor, name] : {std::pair{&vectors, "vectors"},
                                     {&centers, "centers"},
                                     {&heads, "heads"},
                                     {&panels, "panels"},
                                     {&pending, "pending"}})
    expect_same_device(*tensor, name, queries, "queries");
  expect_dense<int64_t>(pending, "pending", 1, "[n]");
  expect_dense<int32_t>(heads, "heads", 1, "[R]");
  const Tensor dense_queries = dense(queries), dense_pending = dense(pending), dense_heads = dense(heads);
  const auto rows = column<const float>(vectors, "vectors", dim);
  const cpu::RegionSearch job{
      static_cast<const float*>(dense_queries.data_ptr()),
      batch,
      dim,
      rows,
      optional_column<const float>(inv_norm, "inv_norm", rows.rows, vectors, "vectors"),
      optional_column<const uint8_t>(active, "active", rows.rows, vectors, "vectors"),
      check_centers(centers, heads.size(0), dim),
      static_cast<const int32_t*>(dense_heads.data_ptr()),
      heads.size(0),
      check_panels(panels, "panels", dim),
      static_cast<const int64_t*>(dense_pending.data_ptr()),
      dense_pending.size(0),
      probes,
      std::min(pool, std::max<int64_t>(rows.rows, 1)),
      k,
      static_cast<float>(min_score)};
  check_values(job);
  Tensor best = make_tensor(queries, {batch, k}, ScalarType::Float);
  Tensor found = make_tensor(queries, {batch, k}, ScalarType::Long);
  search(job, static_cast<float*>(best.data_ptr()), static_cast<int64_t*>(found.data_ptr()));
  return {best, found};
}

// Puts rows into their cells: nearest centre, behind what is there, in panels that follow each other. `where`
// [N] holds the place of each slot (panel * 32 + lane, -1: none); used [1] counts panels. Returns the cells.
Tensor region_add_cpu(const Tensor& heads, const Tensor& tails, const Tensor& panels, const Tensor& where,
                      const Tensor& used, const Tensor& centers, const Tensor& vectors,
                      const Tensor& inv_norm, const Tensor& added) {
  expect_dense<int32_t>(heads, "heads", 1, "[R]");
  expect_dense<int64_t>(added, "added", 1, "[n]");
  expect(vectors.dim() >= 2, kMemoryError, "vectors: expected [N, D] or [G, 1024, D], got ",
         shape_of{vectors});
  const int64_t dim = vectors.size(vectors.dim() - 1), n = added.size(0), cells = heads.size(0);
  for (const auto& [tensor, name] : {std::pair{&heads, "heads"},
                                     {&tails, "tails"},
                                     {&panels, "panels"},
                                     {&where, "where"},
                                     {&used, "used"},
                                     {&centers, "centers"},
                                     {&added, "added"}})
    expect_same_device(*tensor, name, vectors, "vectors");
  const auto rows = column<const float>(vectors, "vectors", dim);
  const auto norms = optional_column<const float>(inv_norm, "inv_norm", rows.rows, vectors, "vectors");
  const cpu::Panels around = check_centers(centers, cells, dim), into = check_panels(panels, "panels", dim);
  expect_sizes(heads, "heads", {cells});
  expect_type<int32_t>(tails, "tails");
  expect_sizes(tails, "tails", {cells, 2});
  expect_dense<int64_t>(where, "where", 1, "[N]");
  expect_type<int64_t>(used, "used");
  expect_sizes(used, "used", {1});
  expect(where.is_contiguous() && where.size(0) >= rows.rows, kMemoryError, "where: expected at least ",
         rows.rows, " places, got ", shape_of{where});
  expect(cells >= 1 || n == 0, kMemoryError, "heads: expected at least one cell, got none");
  const Tensor dense_added = dense(added);
  const auto* slot = static_cast<const int64_t*>(dense_added.data_ptr());
  for (int64_t i = 0; i < n; ++i)
    expect(slot[i] >= 0 && slot[i] < rows.rows, kMemoryError, "added: expected slots in 0..", rows.rows - 1,
           ", got ", slot[i]);

  Tensor assigned = make_tensor(heads, {n}, ScalarType::Int);
  auto* cell = static_cast<int32_t*>(assigned.data_ptr());
  torch::stable::parallel_for(0, n, kRowsPerTask, [&](int64_t begin, int64_t end) {
    static thread_local cpu::RegionSearcher searcher;
    for (int64_t i = begin; i < end; ++i)
      cell[i] = searcher.nearest_cell(around, rows.at(slot[i]), norms[slot[i]], dim);
  });

  // In the order of the cells, so that the panels of one follow each other.
  std::vector<int64_t> start(static_cast<size_t>(cells) + 1, 0), order(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) ++start[static_cast<size_t>(cell[i]) + 1];
  auto* tail = static_cast<int32_t*>(tails.data_ptr());  // [R, 2]: last panel, rows in it
  auto* count = static_cast<int64_t*>(used.data_ptr());
  int64_t wanted = *count;
  for (int64_t c = 0; c < cells; ++c) {
    const int64_t room = tail[2 * c] < 0 ? 0 : cpu::kCellPanel - tail[2 * c + 1];
    wanted += (std::max<int64_t>(start[c + 1] - room, 0) + cpu::kCellPanel - 1) / cpu::kCellPanel;
    start[c + 1] += start[c];
  }
  expect(*count >= 0 && wanted <= into.count, kMemoryError, "panels: expected room for ", wanted,
         " panels, got ", into.count);
  for (int64_t i = 0; i < n; ++i) order[start[cell[i]]++] = i;

  auto* head = static_cast<int32_t*>(heads.data_ptr());
  auto* place = static_cast<int64_t*>(where.data_ptr());
  for (const int64_t i : order) {
    int32_t* last = tail + 2 * cell[i];
    if (last[0] < 0 || last[1] == cpu::kCellPanel) {
      const auto fresh = static_cast<int32_t>((*count)++);
      const cpu::Panel panel = into[fresh];
      (last[0] < 0 ? head[cell[i]] : into[last[0]].next()) = fresh;
      std::memset(panel.bytes, 0, 64);
      panel.next() = -1;
      std::fill_n(panel.slots(), cpu::kCellPanel, -1);
      std::fill_n(panel.scales(), cpu::kCellPanel, NAN);
      std::memset(panel.codes(), cpu::kCodeZero, static_cast<size_t>(into.bytes - 320));
      last[0] = fresh;
      last[1] = 0;
    }
    const cpu::Panel panel = into[last[0]];
    const int64_t lane = last[1]++;
    panel.scales()[lane] = cpu::encode_row(rows.at(slot[i]), dim, lane, panel.codes()) * norms[slot[i]];
    panel.slots()[lane] = static_cast<int32_t>(slot[i]);
    place[slot[i]] = last[0] * cpu::kCellPanel + lane;
  }
  return assigned;
}

}  // namespace

void run_region_search(const cpu::RegionSearch& job, float* scores, int64_t* slots) {
  check_values(job);
  search(job, scores, slots);
}

}  // namespace aesg

STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("region_search", TORCH_BOX(&aesg::region_search_cpu));
  m.impl("region_add_", TORCH_BOX(&aesg::region_add_cpu));
}
