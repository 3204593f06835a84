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

inline constexpr int kThreads = 128;  // of every block that selects; one candidate a thread and tile

// Capacity of the buffer for k results: a power of two with room for one tile beyond k.
__host__ __device__ inline int buffer_size(int64_t k) {
  int size = 2 * kThreads;
  while (size < k + kThreads) size *= 2;
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

  // Offers one candidate a thread.
  __device__ void offer(bool there, float value, int64_t place) {
    // After a cut the k-th stays where it is until the next one: the bar.
    if (there && size[1]) there = ranks_before(value, place, score[k - 1], slot[k - 1]);
    if (there) {
      const int at = atomicAdd(size, 1);
      score[at] = value;
      slot[at] = place;
    }
    __syncthreads();
    const bool tight = *size + kThreads > capacity;
    __syncthreads();  // all have read the size before a cut changes it
    if (tight) cut();
  }

  // Sorts and keeps the k first.
  __device__ void cut() {
    const int count = *size;
    for (int i = count + threadIdx.x; i < capacity; i += blockDim.x) {
      score[i] = -FLT_MAX;
      slot[i] = INT64_MAX;
    }
    __syncthreads();
    for (int width = 2; width <= capacity; width *= 2)
      for (int step = width / 2; step > 0; step /= 2) {
        for (int i = threadIdx.x; i < capacity; i += blockDim.x) {
          const int other = i ^ step;
          if (other <= i) continue;
          const bool forward = (i & width) == 0;
          if (ranks_before(score[other], slot[other], score[i], slot[i]) != forward) continue;
          const float s = score[i];
          const int64_t p = slot[i];
          score[i] = score[other];
          slot[i] = slot[other];
          score[other] = s;
          slot[other] = p;
        }
        __syncthreads();
      }
    if (threadIdx.x == 0) {
      size[0] = count < k ? count : k;
      size[1] = count >= k;
    }
    __syncthreads();
  }
};

}  // namespace aesg::gpu
