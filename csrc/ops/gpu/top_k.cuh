// BlockTopK: the k first of a stream of (score, slot), kept by one block in shared memory.
//
// Candidates that rank before the k-th so far are appended to a buffer; when another tile would not fit, the
// buffer is sorted (bitonic) and cut to k. The order is ranks_before, so the outcome does not depend on the
// order of arrival.
#pragma once

#include <cfloat>
#include <cstdint>

#include "csrc/ops/seed_search_math.h"

namespace aesg::gpu {

inline constexpr int kThreads = 128;  // of nearly every block that selects; one candidate a thread and tile

// Capacity of the buffer for k results of a block of so many threads: a power of two with room for one tile
// beyond k.
__host__ __device__ inline int buffer_size(int64_t k, int threads = kThreads) {
  int size = 2 * threads;
  while (size < k + threads) size *= 2;
  return size;
}

struct BlockTopK {
  float* score;   // shared [capacity]
  int64_t* slot;  // shared [capacity]
  int* size;      // shared: candidates in the buffer; behind it whether its first k are sorted and full
  int capacity;
  int k;

  __host__ __device__ static size_t bytes(int capacity) {
    return capacity * (sizeof(float) + sizeof(int64_t));
  }

  __device__ static BlockTopK at(char* memory, int* size_and_full, int capacity, int k) {
    auto* slots = reinterpret_cast<int64_t*>(memory);
    return {reinterpret_cast<float*>(slots + capacity), slots, size_and_full, capacity, k};
  }

  // All threads call the functions below together, each of them ends with a barrier.

  __device__ void reset() {
    if (threadIdx.x == 0) size[0] = size[1] = 0;
    __syncthreads();
  }

  // Whether a candidate ranks before the bar: after a cut, the k-th stays where it is until the next one.
  __device__ bool takes(float value, int64_t place) const {
    return size[1] == 0 || ranks_before(value, place, score[k - 1], slot[k - 1]);
  }

  // Offers one candidate a thread.
  __device__ void offer(bool there, float value, int64_t place) {
    if (there && takes(value, place)) {
      const int at = atomicAdd(size, 1);
      score[at] = value;
      slot[at] = place;
    }
    __syncthreads();
    const bool tight = *size + static_cast<int>(blockDim.x) > capacity;
    __syncthreads();  // all have read the size before a cut changes it
    if (tight) cut();
  }

  // Sorts and keeps the k first. Pairs up to 32 apart are compared by one warp alone, in its 64 places: only
  // wider steps need the whole block.
  __device__ void cut() {
    const int count = *size;
    int places = 64;
    while (places < count) places *= 2;
    for (int i = count + threadIdx.x; i < places; i += blockDim.x) {
      score[i] = -FLT_MAX;
      slot[i] = INT64_MAX;
    }
    __syncthreads();
    for (int width = 2; width <= places; width *= 2)
      for (int step = width / 2; step > 0; step /= 2) {
        for (int pair = threadIdx.x; pair < places / 2; pair += blockDim.x) {
          const int i = 2 * pair - (pair & (step - 1)), other = i + step;
          const bool forward = (i & width) == 0;
          if (ranks_before(score[other], slot[other], score[i], slot[i]) != forward) continue;
          const float s = score[i];
          const int64_t p = slot[i];
          score[i] = score[other];
          slot[i] = slot[other];
          score[other] = s;
          slot[other] = p;
        }
        const int next =
            step > 1 ? step / 2 : width;  // the step that comes, of another width behind the last
        if (step > 32 || next > 32) {
          __syncthreads();
        } else {
          __syncwarp();
        }
      }
    __syncthreads();
    if (threadIdx.x == 0) {
      size[0] = count < k ? count : k;
      size[1] = count >= k;
    }
    __syncthreads();
  }
};

}  // namespace aesg::gpu
