// Runs CUDA kernels on the host, slowly: one fibre a thread of a block, one block after the other. Not a
// model of a GPU's memory or speed; it shows whether a kernel computes what it should, whatever the order in
// which its threads come to run between two barriers, and stops when a barrier is not met by all threads.
// Launches, copies and fills that a device would refuse are refused.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaStream_t = void*;
enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };

inline dim3 threadIdx(0), blockIdx(0), blockDim(1), gridDim(1);
inline char* dynamic_shared_memory = nullptr;

namespace on_host {

struct Barrier {
  unsigned arrived = 0, generation = 0;
};

// A copy that was issued and did not land yet.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fibre {
  ucontext_t context;
  std::vector<char> stack;
  bool done = false;
  std::vector<std::vector<Copy>> groups;  // of copies, in order; the last is not committed
};

inline std::vector<Fibre> fibres;
inline ucontext_t scheduler;
inline unsigned current = 0, alive = 0;
inline uint64_t progress = 0;  // barriers passed and threads ended
inline Barrier block_barrier;
inline std::vector<Barrier> team_barriers;  // by the first thread of the team
inline std::vector<float> exchanged;
inline std::mt19937 order(1);
inline std::function<void()> body;

inline void yield() {
  const unsigned me = current;
  swapcontext(&fibres[me].context, &scheduler);
}

inline void meet(Barrier& barrier, const unsigned& expected) {
  const unsigned mine = barrier.generation;
  ++barrier.arrived;
  while (barrier.generation == mine) {
    if (barrier.arrived >= expected) {
      barrier.arrived = 0;
      ++barrier.generation;
      ++progress;
    } else {
      yield();
    }
  }
}

inline void enter() {
  body();
  fibres[current].done = true;
  --alive;
  ++progress;
  while (true) yield();
}

inline std::set<const void*> known_shared;  // of the block

// A block finds any values in its shared memory: called by every thread where it is declared.
inline void find_shared(void* at, size_t bytes) {
  if (known_shared.insert(at).second) std::memset(at, 0xab, bytes);
}

inline void run_block(unsigned threads) {
  known_shared.clear();
  if (fibres.size() < threads) fibres.resize(threads);
  block_barrier = {};
  team_barriers.assign(threads, {});
  exchanged.assign(threads, 0.0f);
  alive = threads;
  std::vector<unsigned> turns(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Fibre& fibre = fibres[i];
    turns[i] = i;
    fibre.done = false;
    fibre.groups.assign(1, {});
    fibre.stack.resize(1 << 16);
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.data();
    fibre.context.uc_stack.ss_size = fibre.stack.size();
    fibre.context.uc_link = &scheduler;
    makecontext(&fibre.context, enter, 0);
  }
  int idle = 0;
  while (alive != 0) {
    const uint64_t before = progress;
    for (unsigned i = threads; i > 1; --i) std::swap(turns[i - 1], turns[order() % i]);
    for (const unsigned turn : turns) {
      if (fibres[turn].done) continue;
      current = turn;
      threadIdx = dim3(turn);
      swapcontext(&scheduler, &fibres[turn].context);
    }
    idle = progress == before ? idle + 1 : 0;
    if (idle > 100000) {
      std::fprintf(stderr, "block %u: %u threads wait at barriers the others do not come to\n", blockIdx.x,
                   alive);
      std::abort();
    }
  }
}

constexpr size_t kGivenShared = 48 << 10;             // dynamic shared memory, unless a kernel asks for more
inline std::map<const void*, size_t> shared_allowed;  // by kernel
inline cudaError_t last_error = cudaSuccess;

template <typename Kernel>
const void* address_of(Kernel* kernel) {
  return reinterpret_cast<const void*>(kernel);
}

inline void launch(const void* which, dim3 grid, dim3 block, size_t shared, std::function<void()> kernel) {
  const auto allowed = shared_allowed.find(which);
  const bool fits = shared <= (allowed == shared_allowed.end() ? kGivenShared : allowed->second);
  const bool any = grid.x > 0 && grid.y > 0 && block.x > 0;
  if (!any || grid.x > INT32_MAX || grid.y > 65535 || block.x > 1024 || !fits) {
    last_error = fits ? cudaErrorInvalidConfiguration : cudaErrorInvalidValue;
    return;
  }
  body = std::move(kernel);
  gridDim = grid;
  blockDim = block;
  std::vector<int64_t> memory(shared / sizeof(int64_t) + 1);
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, y);
      std::memset(memory.data(), 0xab, memory.size() * sizeof(int64_t));  // a block finds any values there
      dynamic_shared_memory = reinterpret_cast<char*>(memory.data());
      run_block(block.x);
    }
}

// Now and then another thread goes first.
inline void perhaps_yield() {
  if ((order() & 7) == 0) yield();
}

// The value of thread `from` of the team.
inline float exchange(unsigned mask, float value, unsigned from) {
  const unsigned me = current, team = me / 32 * 32 + static_cast<unsigned>(__builtin_ctz(mask));
  const unsigned members = static_cast<unsigned>(__builtin_popcount(mask));
  exchanged[me] = value;
  meet(team_barriers[team], members);
  const float got = exchanged[from];
  meet(team_barriers[team], members);
  return got;
}

// What a copy is to fill holds NaN until the thread waits for it.
inline void copy_later(void* to, const void* from, size_t bytes) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes != 0) {
    std::fprintf(stderr, "a copy of %zu bytes is not aligned\n", bytes);
    std::abort();
  }
  std::memset(to, 0xff, bytes);
  fibres[current].groups.back().push_back({to, from, bytes});
}
inline void commit_copies() { fibres[current].groups.emplace_back(); }
inline void wait_for_copies(size_t left) {
  auto& groups = fibres[current].groups;
  while (groups.size() > left + 1) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    groups.erase(groups.begin());
  }
}

inline int votes = 0;  // of the threads of a block

// To the nearest bf16, ties to even.
inline uint16_t as_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float of_bf16(uint32_t bits) {
  bits <<= 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// What the lanes of a warp hold of two factors, see csrc/ops/gpu/mma.cuh.
struct Factors {
  uint32_t a[4], b[2];
};
inline std::vector<Factors> factors;

inline void meet_warp() {
  const unsigned warp = current / 32 * 32;
  unsigned there = 0;
  for (unsigned i = warp; i < warp + 32 && i < blockDim.x; ++i) there += !fibres[i].done;
  meet(team_barriers[warp], there);
}

// Worse than tensor cores: the exact sum, off by anything up to 2^-19 of the largest that went into it.
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const unsigned warp = current / 32 * 32, lane = current % 32;
  factors.resize(fibres.size());
  factors[current] = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  meet_warp();
  for (int i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = c[i], most = std::fabs(c[i]);
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned holder = k % 8 / 2;
      const uint32_t left = factors[warp + row % 8 * 4 + holder].a[row / 8 + k / 8 * 2];
      const uint32_t right = factors[warp + column * 4 + holder].b[k / 8];
      const double product =
          double{of_bf16(left >> k % 2 * 16 & 0xffff)} * of_bf16(right >> k % 2 * 16 & 0xffff);
      sum += product;
      most = std::fmax(most, std::fabs(product));
    }
    if (std::isfinite(sum)) sum += most * 0x1p-19 * (static_cast<int>(order() % 3) - 1);
    c[i] = static_cast<float>(sum);
  }
  meet_warp();
}

}  // namespace on_host

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline void __syncthreads() { on_host::meet(on_host::block_barrier, on_host::alive); }
inline int __syncthreads_or(int mine) {
  on_host::votes += mine != 0;
  __syncthreads();
  const int yes = on_host::votes;
  __syncthreads();
  on_host::votes = 0;  // by all, before any can vote again
  __syncthreads();
  return yes != 0;
}
inline int __any_sync(unsigned, int mine) {  // of whole warps
  const unsigned warp = on_host::current / 32 * 32;
  on_host::exchanged[on_host::current] = mine != 0;
  on_host::meet_warp();
  bool any = false;
  for (unsigned lane = 0; lane < 32; ++lane) any |= on_host::exchanged[warp + lane] != 0.0f;
  on_host::meet_warp();
  return any;
}
inline unsigned __ballot_sync(unsigned, int mine) {  // of whole warps
  const unsigned warp = on_host::current / 32 * 32;
  on_host::exchanged[on_host::current] = mine != 0;
  on_host::meet_warp();
  unsigned yes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) yes |= (on_host::exchanged[warp + lane] != 0.0f) * (1u << lane);
  on_host::meet_warp();
  return yes;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline void __syncwarp() { on_host::meet_warp(); }
inline float __shfl_down_sync(unsigned mask, float value, unsigned delta, int width) {
  const unsigned me = on_host::current, lane = me % width;
  return on_host::exchange(mask, value, lane + delta < static_cast<unsigned>(width) ? me + delta : me);
}
inline float __shfl_xor_sync(unsigned mask, float value, int apart, int) {
  return on_host::exchange(mask, value, on_host::current ^ apart);
}
inline float __shfl_sync(unsigned mask, float value, int lane, int width) {
  return on_host::exchange(mask, value, on_host::current / width * width + lane);
}

template <typename T>
T atomicAdd(T* at, T value) {
  on_host::perhaps_yield();
  const T before = *at;
  *at = before + value;
  return before;
}
inline int atomicCAS(int* at, int expected, int value) {
  on_host::perhaps_yield();
  const int before = *at;
  if (before == expected) *at = value;
  return before;
}
inline int atomicExch(int* at, int value) {
  on_host::perhaps_yield();
  const int before = *at;
  *at = value;
  return before;
}
inline int atomicMax(int* at, int value) {
  on_host::perhaps_yield();
  const int before = *at;
  if (value > before) *at = value;
  return before;
}

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float __uint_as_float(uint32_t bits) { return __int_as_float(static_cast<int>(bits)); }
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline long long __double2ll_rn(double x) { return std::llrint(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
using std::isfinite;

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  const auto wanted = static_cast<size_t>(bytes);
  const size_t before =
      on_host::shared_allowed.try_emplace(on_host::address_of(kernel), wanted).first->second;
  // Always the same: a second thread may come between this call and the launch that it is for.
  if (bytes > 227 * 1024 || before != wanted) return on_host::last_error = cudaErrorInvalidValue;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return std::exchange(on_host::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
enum cudaMemcpyKind : int { cudaMemcpyDeviceToDevice = 3 };
// Nothing to copy or fill is an error here: CUDA refuses it where it captures a graph.
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes == 0) return on_host::last_error = cudaErrorInvalidValue;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  if (bytes == 0) return on_host::last_error = cudaErrorInvalidValue;
  std::memset(at, value, bytes);
  return cudaSuccess;
}
