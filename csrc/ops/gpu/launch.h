// What the bindings call on the device. No torch and no CUDA type here: raw device pointers, sizes, a
// workspace the caller owns, and the stream as an opaque pointer. Every launcher returns 0 or a CUDA error
// code, does nothing for empty work, never waits and never allocates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "csrc/ops/bear_math.h"
#include "csrc/ops/block_walk.h"
#include "csrc/ops/coactivate_math.h"
#include "csrc/ops/columns.h"
#include "csrc/ops/consolidate_math.h"
#include "csrc/ops/count_use_math.h"
#include "csrc/ops/follow_math.h"
#include "csrc/ops/keep_primary_math.h"
#include "csrc/ops/note_succession_math.h"
#include "csrc/ops/project_out_math.h"
#include "csrc/ops/retire_math.h"

namespace aesg::gpu {

using Stream = void*;

// Of what a launcher returned, and CUDA forgets it: it is no error of whoever asks next.
const char* error_text(int error);

// Blocks of a launch that takes turns where it has more work than these. Tests make it small.
#ifndef AESG_MOST_BLOCKS
#define AESG_MOST_BLOCKS (1 << 16)
#endif
inline constexpr int64_t kMostBlocks = AESG_MOST_BLOCKS;

int consolidate(const ConsolidateRules& rules, int64_t count, Column<const uint8_t> active,
                Column<const uint32_t> use_frequency, Column<uint32_t> age, Column<float> relevance,
                uint8_t* doomed,  // [rows of age], all written
                Stream stream);

int keep_primary(const KeepPrimary& job, Stream stream);

int project_out(const ProjectOut& job, Stream stream);
int project_out_inv_norm(const ProjectOutInvNorm& job, Stream stream);

int note_succession(const NoteSuccession& job, Stream stream);
size_t follow_workspace(const Follow& job);
// order: [n], of the events, by source and then as they came; what it says otherwise is a wrong result, no
// more.
int follow(const Follow& job, const int64_t* order, void* workspace, Stream stream);

size_t retire_workspace(const Retire& job);
int retire(const Retire& job, void* workspace, int64_t* died, Stream stream);  // died: [1]

struct SeedSearch {
  const float* queries;  // [B, D] contiguous; rows that are not finite find nothing
  int64_t batch, dim;
  Column<const float> vectors;
  Column<const float> inv_norm;  // or null
  Column<const uint8_t> active;  // or null
  int64_t count;
  float min_score;
  int64_t k;           // 1..kMostK
  bool exact = false;  // no approximate product, not even to sift
};

inline constexpr int64_t kMostK = 1024;

size_t seed_search_workspace(const SeedSearch& job);
int seed_search(const SeedSearch& job, void* workspace, float* scores, int64_t* slots, Stream stream);

struct SpreadGraph {
  Column<const int32_t> first_block;  // [N]
  Column<const int32_t> targets;      // [M, 7]
  Column<const float> strengths;      // [M, 7]
  Column<const int32_t> next_block;   // [M]
  Column<const uint8_t> active;       // [N]
  Column<const int32_t> regions;      // [N] or null

  AESG_HD BlockWalk<const int32_t> walk_from(int32_t head) const { return {next_block, head}; }
};

struct SpreadRules {
  int64_t hops;
  float decay, facilitation, source_floor, transfer_floor;
};

struct Spread {
  const int64_t* seeds;   // [B, S]; outside -1..N-1: as -1
  const float* energies;  // [B, S]
  int64_t batch, seed_count;
  SpreadGraph graph;
  SpreadRules rules;
  int64_t k;              // 1..kMostK
  bool jacobian = false;  // the derivative is wanted
};

size_t spread_activation_workspace(const Spread& job);
// jacobian: [B, k, S] or null.
int spread_activation(const Spread& job, void* workspace, float* energies, int64_t* slots, float* jacobian,
                      Stream stream);

inline constexpr int64_t kMostHopsBack = 64;  // whose history is kept

struct SpreadBackward {
  Spread spread;           // hops up to kMostHopsBack
  const float* gradients;  // [B, k], of the energies
  const int64_t* slots;    // [B, k], as spreading gave them
};

size_t spread_activation_backward_workspace(const SpreadBackward& job);
// sums: [M, 7], all written.
int spread_activation_backward(const SpreadBackward& job, void* workspace, float* sums, Stream stream);

struct ActivateContext {
  const float* similarities;  // [B, S], best first; not finite: none
  const int64_t* seeds;       // [B, S]; outside -1..N-1: as -1
  const float* bar;           // [B] or null
  int64_t batch, seed_count;  // S up to kMostK

  const int64_t* primed;              // [B, P] or null; outside -1..N-1: as -1
  const int64_t* primed_ids;          // [B, P]
  const float* primed_energies;       // [B, P]
  Column<const int64_t> current_ids;  // [N] or null
  int64_t primed_count;               // P
  float share;

  Column<const float> vectors;  // [N, D]
  int64_t dim;
  SpreadGraph graph;
  SpreadRules rules;
  float relative;
  int64_t k;              // 1..kMostK
  bool jacobian = false;  // derivatives are wanted
};

struct Contexts {
  int64_t* seeds;       // [B, S]
  float* similarities;  // [B, S]
  int64_t* members;     // [B, K]
  float* energies;      // [B, K]
  float* vectors;       // [B, K, D] or null
  float* jacobian;      // [B, K, S] or null
  float* seed_vectors;  // [B, S, D] or null
};

size_t activate_context_workspace(const ActivateContext& job);
int activate_context(const ActivateContext& job, void* workspace, const Contexts& out, Stream stream);

int replay_energies(const float* energies, int64_t count, float* out, Stream stream);

struct ReplayEnergies {
  const float* gradients;     // [B, K], all contiguous
  const float* queries;       // [B, D]
  const int64_t* seeds;       // [B, S], below 0: none
  const float* similarities;  // [B, S]
  const float* jacobian;      // [B, K, S]
  const float* seed_vectors;  // [B, S, D]
  int64_t batch, dim, members, seed_count;
};

int replay_energies_backward(const ReplayEnergies& job, float* out, Stream stream);  // [B, D]

struct ReadMembers {
  const float* sought;            // [B, H, D], all contiguous
  const float* queries;           // [B, D]
  const float* likeness_weight;   // [H]
  const float* vectors;           // [B, K, D]
  const float* energies;          // [B, K]; a member without energy is none
  int64_t batch, heads, members;  // H up to kMostHeads, K up to kMostK
  int64_t dim;
};

inline constexpr int64_t kMostHeads = 4096;

// found [B, H, D], mean [B, D], shares [B, H, K].
int read_members(const ReadMembers& job, float* found, float* mean, float* shares, Stream stream);

struct ReadMembersGradients {
  const float* shares;      // [B, H, K]
  const float* grad_found;  // [B, H, D]
  const float* grad_mean;   // [B, D]
};

struct ReadMembersGradientsOut {
  float* sought;           // [B, H, D]
  float* queries;          // [B, D]
  float* likeness_weight;  // [B, H]
  float* energies;         // [B, K]
};

int read_members_backward(const ReadMembers& job, const ReadMembersGradients& given,
                          const ReadMembersGradientsOut& out, Stream stream);

struct PoolNovelty {
  float* candidates;    // [P, D] running means
  int32_t* counts;      // [P]
  int64_t* stamps;      // [P]
  int64_t* state;       // [2] candidates in use, clock
  int64_t capacity;     // P, 1..INT32_MAX
  int64_t dim;          // D
  const float* inputs;  // [n, D]; rows that are not finite are left out
  int64_t count;        // n
  float threshold;
  int32_t birth_count;
  bool birth_first;
  const int64_t* living;  // [1] or null: the first is born only where it is 0
  uint8_t* born;          // [n], written as is
  float* born_vectors;    // [n, D]
};

size_t pool_novelty_workspace(const PoolNovelty& job);
int pool_novelty(const PoolNovelty& job, void* workspace, Stream stream);

// job.order is given: it puts the uses of one slot side by side, in their own order.
int count_use(const CountUse& job, Stream stream);

int coactivation_pairs(const Primaries& primaries, int64_t* pairs, Stream stream);  // [pair_count(primaries)]
int coactivate(const Coactivate& job, Stream stream);
struct PackRows {
  const float* rows;      // [n, D]
  const uint8_t* chosen;  // [n]
  const int64_t* most;    // [1] or null: all
  int64_t count, width;   // n, D
  float* packed;          // [n, D], all written
  int64_t* places;        // [n]
  int64_t* packed_count;  // [1]
};

size_t pack_rows_workspace(const PackRows& job);
int pack_rows(const PackRows& job, void* workspace, Stream stream);

size_t bear_workspace(const Bear& job);
int bear(const Bear& job, void* workspace, Stream stream);

}  // namespace aesg::gpu
