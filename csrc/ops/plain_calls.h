// Calls of ops on plain pointers: what their bindings and the direct ones (csrc/bindings/direct_calls.cpp)
// share. Each looks at values, as only the CPU can, throws what its op says of them, and runs on all threads.
// REQUIRES: types, shapes and numbers were checked.
#pragma once

#include <cstdint>

#include "csrc/ops/cpu/activate_context.h"
#include "csrc/ops/cpu/region_search.h"
#include "csrc/ops/cpu/seed_search.h"
#include "csrc/ops/cpu/spread_activation.h"

namespace aesg {

// Writes [B, k] of both. Throws where queries are not finite.
void run_seed_search(const cpu::SeedSearch& job, int64_t k, float* scores, int64_t* slots);

// Writes [B, k] of both. Throws where queries are not finite or the cells are damaged.
void run_region_search(const cpu::RegionSearch& job, float* scores, int64_t* slots);

struct SpreadCall {
  const int64_t* seeds;   // [batch, width]
  const float* energies;  // [batch, width]
  int64_t batch, width, k;
  cpu::SpreadGraph graph;
  cpu::SpreadRules rules;
};

// Writes [batch, k] of both. Throws where a seed lies outside the graph, an energy is not finite or the edges
// are damaged.
void run_spread_activation(const SpreadCall& call, float* energies, int64_t* slots);

struct ContextCall {
  const float* similarities;  // [B, S]
  const int64_t* seeds;       // [B, S]
  const float* bars;          // [B] or null
  int64_t batch, dim;
  Column<const float> vectors;  // [N, D]
  cpu::SpreadGraph graph;
  cpu::SpreadRules rules;
  cpu::Priming priming;
  cpu::ContextRules context;  // S, K and whether derivatives are wanted
  bool gather;

  int64_t gathered() const { return gather ? batch : 0; }
  int64_t traced() const { return context.jacobian ? batch : 0; }
};

struct ContextResults {
  int64_t* seeds;       // [B, S]
  float* similarities;  // [B, S]
  int64_t* members;     // [B, K]
  float* energies;      // [B, K]
  float* vectors;       // [gathered, K, D]
  float* jacobian;      // [traced, K, S]
  float* seed_vectors;  // [traced, S, D]
};

// Throws where a slot lies outside the graph, a number is not finite or the edges are damaged.
void run_activate_context(const ContextCall& call, const ContextResults& results);

}  // namespace aesg
