// Tangents: d energy / d seed energy of all that a query touches, for kColumns of its seeds at a time; the
// query runs again for the next ones. They go along with SpreadBlock: each hop's edges are walked a second
// time, for those targets that will rise. Sums are integers (spread_activation_math.h), so the same input has
// the same bits; each sum is that of the products that the CPU adds up in f32, rounded once.
#pragma once

#include <cstdint>

#include "csrc/ops/gpu/spread.cuh"
#include "csrc/ops/spread_activation_math.h"

namespace aesg::gpu {

inline constexpr int kColumns = 4;  // contexts have as many seeds unless told otherwise

// A row for each concept touched, in the order of Table::touched; at most half of the places are in use.
struct Tangents {
  unsigned long long* arriving;  // [rows, kColumns], 0 between hops
  float* slopes;                 // [rows, kColumns]
  int* row_of;                   // [places]
  double* scales;                // shared [kColumns], of the seeds that count for a concept, else 0

  static constexpr int64_t kBytesPerPlace =
      kColumns * (sizeof(unsigned long long) + sizeof(float)) / 2 + sizeof(int);

  __device__ static Tangents at(const Table& table, double* scales) {
    const int64_t cells = int64_t{kColumns} << (table.bits - 1);
    auto* arriving = reinterpret_cast<unsigned long long*>(table.more);
    auto* slopes = reinterpret_cast<float*>(arriving + cells);
    return {arriving, slopes, reinterpret_cast<int*>(slopes + cells), scales};
  }

  // All threads call the two functions below together.

  // When all have started: columns are the seeds from `first` up to `end`. slot(s), energy(s): what started
  // as the s-th, primed ones behind the seeds.
  template <typename Slot, typename Energy>
  __device__ void start(const SpreadBlock& block, const Slot& slot, const Energy& energy, int64_t first,
                        int64_t end) const {
    const Table& table = block.table;
    __syncthreads();
    if (block.count[1]) return;
    add_rows(block, 0);
    __syncthreads();
    for (int c = threadIdx.x; c < kColumns; c += kThreads) {
      const int64_t s = first + c;
      scales[c] = 0.0;
      if (s >= end || !block.inside(slot(s)) || !(energy(s) > 0.0f)) continue;
      const int64_t own = slot(s);
      const int place = table.find(static_cast<int>(own));
      if (place < 0 || table.energy[place] != energy(s)) continue;  // dead, or a stronger one counts
      bool counts = true;
      for (int64_t before = 0; before < s; ++before)
        counts &= slot(before) != own || energy(before) != energy(s);
      if (!counts) continue;
      scales[c] = tangent_scale(energy(s));
      slopes[int64_t{row_of[place]} * kColumns + c] = 1.0f;
    }
    __syncthreads();
  }

  __device__ void operator()(const SpreadBlock& block, int region, int64_t, int known) const {
    if (block.count[1]) return;
    add_rows(block, known);
    __syncthreads();
    block.each_edge(known, [&](int row, float energy, int head, int at, int lane) {
      carry(block, region, row, energy, head, at, lane);
    });
    const Table& table = block.table;
    for (int i = threadIdx.x; i < *block.count; i += kThreads) {
      const int place = table.touched[i];
      const float energy = fixed_energy(static_cast<int64_t>(table.sum[place]));
      if (!(energy > table.energy[place])) continue;
      for (int c = 0; c < kColumns; ++c) {
        const int64_t cell = int64_t{i} * kColumns + c;
        slopes[cell] = arriving[cell] != 0 ? float_tangent(arriving[cell], scales[c]) : 0.0f;
        arriving[cell] = 0;
      }
    }
  }

  // Of a concept that was touched, by any thread.
  __device__ float slope(const SpreadBlock& block, int64_t slot, int c) const {
    return slopes[int64_t{row_of[block.table.find(static_cast<int>(slot))]} * kColumns + c];
  }

 private:
  __device__ void add_rows(const SpreadBlock& block, int known) const {
    for (int i = known + threadIdx.x; i < *block.count; i += kThreads) {
      row_of[block.table.touched[i]] = i;
      for (int c = 0; c < kColumns; ++c) {
        arriving[int64_t{i} * kColumns + c] = 0;
        slopes[int64_t{i} * kColumns + c] = 0.0f;
      }
    }
  }

  __device__ void carry(const SpreadBlock& block, int region, int row, float energy, int head, int at,
                        int lane) const {
    const Table& table = block.table;
    const SpreadRules& rules = block.rules;
    const int target = block.graph.targets.at(at)[lane];
    const int place = block.inside(target) ? table.find(target) : -1;
    if (place < 0) return;
    const float rises = fixed_energy(static_cast<int64_t>(table.sum[place]));
    if (!(rises > table.energy[place]) || !(rises < 1.0f)) return;  // what saturates has no derivative
    const float strength = block.graph.strengths.at(at)[lane];
    const float factor = block.factor_into(target, region);
    if (!(transfer(energy, strength, rules.decay, factor) > rules.transfer_floor)) return;
    if (!strongest(block.graph, head, at, lane, target, strength)) return;
    const float slope = transfer(1.0f, strength, rules.decay, factor);
    const float* from = slopes + int64_t{row} * kColumns;
    unsigned long long* to = arriving + int64_t{row_of[place]} * kColumns;
    for (int c = 0; c < kColumns; ++c)
      if (from[c] != 0.0f)
        atomicAdd(&to[c], static_cast<unsigned long long>(fixed_tangent(slope, from[c], scales[c])));
  }
};

}  // namespace aesg::gpu
