// SpreadBlock: all hops of one query by one block, over a hash of touched concepts in global memory. Shared
// by spread_activation and activate_context. Sums are integers, so the atomic order does not matter and the
// bits are those of the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/top_k.cuh"
#include "csrc/ops/spread_activation_math.h"

#ifndef AESG_SMALL_TABLE_BITS
#define AESG_SMALL_TABLE_BITS 14  // at least 9; tests make it small
#endif

namespace aesg::gpu {

inline constexpr int kEdges = 7;                     // a block of edges
inline constexpr int kTeam = 8;                      // threads that read one block of edges
inline constexpr int64_t kMostTables = 512;          // queries at work at once
inline constexpr int64_t kLargeBytes = 1LL << 28;    // of all large tables, before there are fewer of them
inline constexpr uint32_t kHashFactor = 0x9e3779b1;  // 2^32 / golden ratio

// The hash of one block: 2^bits places, of which half may be in use. While some thread still adds one more,
// the others may too, so another kThreads places must be free.
struct Table {
  unsigned long long* sum;  // n_j in fixed point
  int* slot;                // -1: free
  float* energy;
  int* touched;  // places in use
  int bits;
  char* more;  // what derivatives keep

  // counts: places in use, and behind it whether they were too many. -1 when they are.
  __device__ int find_or_add(int wanted, int* counts) const {
    if (atomicAdd(&counts[1], 0) != 0) return -1;
    const unsigned mask = (1u << bits) - 1;
    unsigned place = static_cast<unsigned>(wanted) * kHashFactor >> (32 - bits);
    while (true) {
      const int before = atomicCAS(&slot[place], -1, wanted);
      if (before == -1) {
        const int at = atomicAdd(&counts[0], 1);
        touched[at] = static_cast<int>(place);
        if (at >= 1 << (bits - 1)) atomicMax(&counts[1], 1);
      }
      if (before == -1 || before == wanted) return static_cast<int>(place);
      place = (place + 1) & mask;
    }
  }

  // -1 when it is not there. No thread adds meanwhile.
  __device__ int find(int wanted) const {
    const unsigned mask = (1u << bits) - 1;
    unsigned place = static_cast<unsigned>(wanted) * kHashFactor >> (32 - bits);
    while (slot[place] != wanted) {
      if (slot[place] == -1) return -1;
      place = (place + 1) & mask;
    }
    return static_cast<int>(place);
  }

  // By all threads.
  __device__ void clear() const {
    for (int64_t i = threadIdx.x; i < int64_t{1} << bits; i += kThreads) {
      sum[i] = 0;
      slot[i] = -1;
      energy[i] = 0.0f;
    }
    __syncthreads();
  }
};

// The tables of a launch, one for each of its blocks.
struct Tables {
  int bits = 0;
  int64_t count = 0;
  int64_t more = 0;  // bytes a place for derivatives
  Table first = {};

  static size_t table_bytes(int bits, int64_t more) {
    return (sizeof(int64_t) + 3 * sizeof(int32_t) + more) << bits;
  }
  size_t bytes() const { return count * table_bytes(bits, more); }

  void place(char* memory) {
    const int64_t all = count << bits;
    auto* sum = reinterpret_cast<unsigned long long*>(memory);
    auto* slot = reinterpret_cast<int*>(sum + all);
    auto* energy = reinterpret_cast<float*>(slot + all);
    auto* touched = reinterpret_cast<int*>(energy + all);
    first = {sum, slot, energy, touched, bits, reinterpret_cast<char*>(touched + all)};
  }

  __device__ Table of_block(int64_t block) const {
    const int64_t at = block << bits;
    return {first.sum + at, first.slot + at,       first.energy + at, first.touched + at,
            bits,           first.more + at * more};
  }
};

// Small tables serve all queries but those that touch too much: these are marked, and a second launch serves
// them with few tables that hold every concept, emptied only when there is such a query. So a call costs
// nothing that follows N. Where small tables hold every concept, there is one launch.
struct Passes {
  Tables small, large;
  uint8_t* again = nullptr;  // [B] queries left to the second launch

  // more: bytes a place for derivatives; then the small tables too take at most kLargeBytes.
  static Passes plan(int64_t slots, int64_t batch, int64_t more = 0) {
    Passes made;
    const auto fitting = [more](int bits, int64_t most) {
      const auto bytes = static_cast<int64_t>(Tables::table_bytes(bits, more));
      return std::clamp<int64_t>(kLargeBytes / bytes, 1, most);
    };
    int bits = 9;
    while (int64_t{1} << bits < 2 * slots) ++bits;
    made.small.more = made.large.more = more;
    made.small.bits = std::min(bits, AESG_SMALL_TABLE_BITS);
    made.small.count = std::min(kMostTables, std::max<int64_t>(1, batch));
    if (more > 0) made.small.count = fitting(made.small.bits, made.small.count);
    if (made.small.bits == bits) return made;
    made.large.bits = bits;
    made.large.count = fitting(bits, made.small.count);
    return made;
  }
  // All parts are multiples of 8 but the last.
  size_t bytes(int64_t batch) const { return small.bytes() + large.bytes() + batch; }
  void place(void* workspace) {
    char* memory = static_cast<char*>(workspace);
    small.place(memory);
    large.place(memory + small.bytes());
    again = reinterpret_cast<uint8_t*>(memory + small.bytes() + large.bytes());
  }
};

// Of parallel edges the strongest counts, of equals the first in the chain.
__device__ inline bool strongest(const SpreadGraph& graph, int head, int block, int place, int target,
                                 float strength) {
  bool behind = false;  // past the edge asked about
  for (auto chain = graph.walk_from(head); chain.there(); chain.next()) {
    for (int i = 0; i < kEdges; ++i) {
      if (chain.block == block && i == place) {
        behind = true;
        continue;
      }
      if (graph.targets.at(chain.block)[i] != target) continue;
      const float other = graph.strengths.at(chain.block)[i];
      if (other > strength || (other == strength && !behind)) return false;
    }
  }
  return true;
}

// What goes along with the hops of a query: nothing. Called by all threads when a hop has been counted and
// before energies rise; concepts from the `known`-th touched on are new.
struct Alone {
  template <typename Block>
  __device__ void operator()(const Block&, int /*region*/, int64_t /*hop*/, int /*known*/) const {}
};

// All threads of the block call its functions together; each but start() ends with a barrier.
struct SpreadBlock {
  const SpreadGraph& graph;
  const SpreadRules& rules;
  Table table;
  int* count;  // shared: places in use; behind it whether they were too many

  __device__ bool inside(int64_t slot) const { return slot >= 0 && slot < graph.first_block.rows; }

  __device__ void begin() const {
    if (threadIdx.x == 0) count[0] = count[1] = 0;
    __syncthreads();
  }

  // A concept's energy before the first hop, by any thread; of equal concepts the strongest counts.
  __device__ void start(int64_t slot, float energy) const {
    if (!inside(slot) || !(energy > 0.0f) || !graph.active[slot]) return;
    const int place = table.find_or_add(static_cast<int>(slot), count);
    if (place < 0) return;
    // Positive floats order like their bits.
    atomicMax(reinterpret_cast<int*>(&table.energy[place]), __float_as_int(energy));
  }

  // The region edges are helped into: that of the first concept started, 0 for none.
  __device__ int region_of(int64_t first) const {
    return graph.regions && inside(first) ? graph.regions[first] : 0;
  }

  __device__ float factor_into(int target, int region) const {
    return region != 0 && graph.regions[target] == region ? rules.facilitation : 1.0f;
  }

  // visit(i, energy, head, block, lane) for every edge of those of the first `known` touched that fire: a
  // team a source, a thread an edge of the block.
  template <typename Visit>
  __device__ void each_edge(int known, const Visit& visit) const {
    const int lane = threadIdx.x % kTeam, team = threadIdx.x / kTeam, teams = kThreads / kTeam;
    for (int i = team; i < known; i += teams) {
      const int source = table.touched[i];
      const float energy = table.energy[source];
      if (energy < rules.source_floor || lane >= kEdges) continue;
      const int head = graph.first_block[table.slot[source]];
      for (auto chain = graph.walk_from(head); chain.there(); chain.next())
        visit(i, energy, head, chain.block, lane);
    }
    __syncthreads();
  }

  // All hops; false when the table is too small for them.
  template <typename Along = Alone>
  __device__ bool run(int region, const Along& along = {}) const {
    __syncthreads();  // all have started
    for (int64_t hop = 0; hop < rules.hops && !count[1]; ++hop) {
      const int known = *count;
      __syncthreads();
      each_edge(known, [&](int, float energy, int head, int block, int lane) {
        fire(block, lane, head, energy, region);
      });
      along(*this, region, hop, known);
      for (int i = threadIdx.x; i < *count; i += kThreads) {
        const int place = table.touched[i];
        table.energy[place] =
            fmaxf(table.energy[place], fixed_energy(static_cast<int64_t>(table.sum[place])));
        table.sum[place] = 0;
      }
      __syncthreads();
    }
    return !count[1];
  }

  // The strongest of all touched; `best` is reset first.
  __device__ void choose(BlockTopK& best) const {
    best.reset();
    for (int base = 0; base < *count; base += kThreads) {
      const int i = base + threadIdx.x;
      const int place = i < *count ? table.touched[i] : 0;
      const float energy = i < *count ? table.energy[place] : 0.0f;
      best.offer(energy > 0.0f, energy, i < *count ? table.slot[place] : -1);
    }
    best.cut();
  }

  // Leaves the table as it was found.
  __device__ void end() const {
    for (int i = threadIdx.x; i < *count; i += kThreads) {
      table.slot[table.touched[i]] = -1;
      table.energy[table.touched[i]] = 0.0f;
    }
    __syncthreads();
  }

 private:
  __device__ void fire(int block, int lane, int head, float energy, int region) const {
    const int target = graph.targets.at(block)[lane];
    if (!inside(target) || !graph.active[target]) return;
    const float strength = graph.strengths.at(block)[lane];
    const int32_t gives = fixed_transfer(transfer(energy, strength, rules.decay, factor_into(target, region)),
                                         rules.transfer_floor);
    if (gives == 0 || !strongest(graph, head, block, lane, target, strength)) return;
    const int place = table.find_or_add(target, count);
    if (place >= 0) atomicAdd(&table.sum[place], static_cast<unsigned long long>(gives));
  }
};

}  // namespace aesg::gpu
