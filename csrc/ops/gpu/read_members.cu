// read_members and its derivative on the device: one block a position. Sums over D are made by teams of
// kSumLanes threads in the lanes of the CPU, sums over members and heads by one thread in order, so all but
// logarithms and exponentials has the bits of the CPU.
#include <algorithm>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/read_members_math.h"

namespace aesg::gpu {
namespace {

constexpr int kBlock = 128;
constexpr int kTeams = kBlock / kSumLanes;

__device__ int lane() { return threadIdx.x % kSumLanes; }
__device__ int team() { return threadIdx.x / kSumLanes; }

// sum over d of a(d) * b(d), by all threads of a team, which all get it.
template <typename A, typename B>
__device__ float team_dot(const A& a, const B& b, int64_t dim) {
  const unsigned mask = 0xffffu << (threadIdx.x % 32 / kSumLanes * kSumLanes);
  float sum = 0;
  for (int64_t d = lane(); d < dim; d += kSumLanes) sum = add_product(sum, a(d), b(d));
  for (int width = kSumLanes / 2; width > 0; width /= 2)
    sum = __fadd_rn(sum, __shfl_down_sync(mask, sum, width, kSumLanes));
  return __shfl_sync(mask, sum, 0, kSumLanes);
}

struct Values {  // a row as a function of d
  const float* row;
  __device__ float operator()(int64_t d) const { return row[d]; }
};

struct Scaled {
  const float* row;
  float scale;
  __device__ float operator()(int64_t d) const { return __fmul_rn(row[d], scale); }
};

// One position's part of the arguments.
struct Position {
  const float *sought, *query, *vectors, *energies;

  __device__ Position(const ReadMembers& job, int64_t b)
      : sought(job.sought + b * job.heads * job.dim),
        query(job.queries + b * job.dim),
        vectors(job.vectors + b * job.members * job.dim),
        energies(job.energies + b * job.members) {}
};

__device__ float inverse_of(const float* row, int64_t dim) {
  return inverse_length(team_dot(Values{row}, Values{row}, dim));
}

__global__ void read_kernel(ReadMembers job, float* all_found, float* all_mean, float* all_shares) {
  extern __shared__ __align__(16) char memory[];
  const int64_t heads = job.heads, members = job.members, dim = job.dim;
  auto* inverses = reinterpret_cast<float*>(memory);  // [K]
  float* logs = inverses + members;                   // [K]
  float* likeness = logs + members;                   // [K]
  float* highest = likeness + members;                // [H]
  float* total = highest + heads;                     // [H]

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    const Position in(job, b);
    float* shares = all_shares + b * heads * members;
    const Scaled unit{in.query, inverse_of(in.query, dim)};
    for (int64_t k = team(); k < members; k += kTeams) {
      const Values v{in.vectors + k * dim};
      const bool there = in.energies[k] > 0.0f;
      const float inverse = there ? inverse_of(v.row, dim) : 0.0f;
      const float like = there ? __fmul_rn(team_dot(unit, v, dim), inverse) : 0.0f;
      if (lane() != 0) continue;
      inverses[k] = inverse;
      likeness[k] = like;
      logs[k] = there ? log_energy(in.energies[k]) : 0.0f;
    }
    __syncthreads();
    for (int64_t i = team(); i < heads * members; i += kTeams) {
      const int64_t h = i / members, k = i % members;
      if (!(in.energies[k] > 0.0f)) continue;
      const float along = team_dot(Values{in.sought + h * dim}, Values{in.vectors + k * dim}, dim);
      if (lane() == 0)
        shares[i] = member_score(along, inverses[k], job.likeness_weight[h], likeness[k], logs[k]);
    }
    __syncthreads();
    for (int64_t h = threadIdx.x; h < heads; h += kBlock) {
      float most = 0.0f;  // the score of "nothing"
      for (int64_t k = 0; k < members; ++k)
        if (in.energies[k] > 0.0f && most < shares[h * members + k]) most = shares[h * members + k];
      highest[h] = most;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < heads * members; i += kBlock)
      shares[i] =
          in.energies[i % members] > 0.0f ? exact_exp(__fsub_rn(shares[i], highest[i / members])) : 0.0f;
    __syncthreads();
    for (int64_t h = threadIdx.x; h < heads; h += kBlock) {
      float sum = exact_exp(-highest[h]);
      for (int64_t k = 0; k < members; ++k) sum = __fadd_rn(sum, shares[h * members + k]);
      total[h] = sum;
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < heads * members; i += kBlock)
      shares[i] = __fdiv_rn(shares[i], total[i / members]);
    __syncthreads();

    for (int64_t i = threadIdx.x; i < heads * dim; i += kBlock) {
      const float* share = shares + i / dim * members;
      const float* column = in.vectors + i % dim;
      float sum = 0.0f;
      for (int64_t k = 0; k < members; ++k)
        if (share[k] != 0.0f) sum = add_product(sum, __fmul_rn(share[k], inverses[k]), column[k * dim]);
      all_found[b * heads * dim + i] = sum;
    }
    for (int64_t d = threadIdx.x; d < dim; d += kBlock) {
      float sum = 0.0f;
      for (int64_t k = 0; k < members; ++k)
        if (in.energies[k] > 0.0f) sum = add_product(sum, in.energies[k], in.vectors[k * dim + d]);
      all_mean[b * dim + d] = sum;
    }
    __syncthreads();  // what is shared is read no more
  }
}

// With m, u the members and the query of length 1, w the energies, p the shares:
//   score_hk = (sought_h + weight_h u) . m_k + log w_k,  found_h = sum p_hk m_k,  mean = sum w_k v_k
//   d score_hk = p_hk (g_h . m_k - sum_j p_hj g_h . m_j),  g the gradient of found; "nothing" adds nothing.
__global__ void read_backward_kernel(ReadMembers job, ReadMembersGradients given,
                                     ReadMembersGradientsOut out) {
  extern __shared__ __align__(16) char memory[];
  const int64_t heads = job.heads, members = job.members, dim = job.dim;
  auto* inverses = reinterpret_cast<float*>(memory);  // [K]
  float* slopes = inverses + members;                 // [K], of one head
  float* grad_energies = slopes + members;            // [K]

  for (int64_t b = blockIdx.x; b < job.batch; b += gridDim.x) {
    const Position in(job, b);
    const float* shares = given.shares + b * heads * members;
    const Values grad_mean{given.grad_mean + b * dim};
    float* grad_query = out.queries + b * dim;  // gathers the gradient of u until it is complete
    const float inverse_query = inverse_of(in.query, dim);
    const Scaled unit{in.query, inverse_query};
    for (int64_t k = team(); k < members; k += kTeams) {
      const Values v{in.vectors + k * dim};
      const bool there = in.energies[k] > 0.0f;
      const float inverse = there ? inverse_of(v.row, dim) : 0.0f;
      const float gradient = there ? team_dot(grad_mean, v, dim) : 0.0f;
      if (lane() != 0) continue;
      inverses[k] = inverse;
      grad_energies[k] = gradient;
    }
    for (int64_t d = threadIdx.x; d < dim; d += kBlock) grad_query[d] = 0.0f;
    __syncthreads();

    for (int64_t h = 0; h < heads; ++h) {
      const float* share = shares + h * members;
      const Values grad{given.grad_found + (b * heads + h) * dim};
      float* to = out.sought + (b * heads + h) * dim;
      for (int64_t k = team(); k < members; k += kTeams) {
        const float along = share[k] != 0.0f ? team_dot(grad, Values{in.vectors + k * dim}, dim) : 0.0f;
        if (lane() == 0) slopes[k] = share[k] != 0.0f ? __fmul_rn(along, inverses[k]) : 0.0f;
      }
      __syncthreads();
      float average = 0.0f;  // every thread for itself
      for (int64_t k = 0; k < members; ++k) average = add_product(average, share[k], slopes[k]);
      for (int64_t d = threadIdx.x; d < dim; d += kBlock) {
        float sum = 0.0f;
        for (int64_t k = 0; k < members; ++k) {
          if (share[k] == 0.0f) continue;
          const float slope = score_slope(share[k], slopes[k], average);
          sum = add_product(sum, __fmul_rn(slope, inverses[k]), in.vectors[k * dim + d]);
        }
        to[d] = sum;
        grad_query[d] = add_product(grad_query[d], job.likeness_weight[h], sum);
      }
      for (int64_t k = threadIdx.x; k < members; k += kBlock)
        if (share[k] != 0.0f && in.energies[k] >= FLT_MIN)
          grad_energies[k] = __fadd_rn(grad_energies[k],
                                       __fdiv_rn(score_slope(share[k], slopes[k], average), in.energies[k]));
      __syncthreads();
      if (team() == 0) {
        const float likeness = team_dot(Values{to}, unit, dim);
        if (lane() == 0) out.likeness_weight[b * heads + h] = likeness;
      }
    }
    const float along = team_dot(Values{grad_query}, unit, dim);
    __syncthreads();  // every team has it before the gradient changes
    for (int64_t d = threadIdx.x; d < dim; d += kBlock)
      grad_query[d] = across(grad_query[d], along, unit(d), inverse_query);
    for (int64_t k = threadIdx.x; k < members; k += kBlock) out.energies[b * members + k] = grad_energies[k];
    __syncthreads();
  }
}

unsigned blocks_of(const ReadMembers& job) { return static_cast<unsigned>(std::min(job.batch, kMostBlocks)); }

}  // namespace

int read_members(const ReadMembers& job, float* found, float* mean, float* shares, Stream stream) {
  if (job.batch == 0) return 0;
  const size_t shared = sizeof(float) * (3 * job.members + 2 * job.heads);
  read_kernel<<<blocks_of(job), kBlock, shared, static_cast<cudaStream_t>(stream)>>>(job, found, mean,
                                                                                     shares);
  return cudaGetLastError();
}

int read_members_backward(const ReadMembers& job, const ReadMembersGradients& given,
                          const ReadMembersGradientsOut& out, Stream stream) {
  if (job.batch == 0) return 0;
  const size_t shared = sizeof(float) * 3 * job.members;
  read_backward_kernel<<<blocks_of(job), kBlock, shared, static_cast<cudaStream_t>(stream)>>>(job, given,
                                                                                              out);
  return cudaGetLastError();
}

}  // namespace aesg::gpu
