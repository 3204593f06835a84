// Running sums over the threads of a block.
#pragma once

namespace aesg::gpu {

// The sum of the values of the threads before this one; `*all` is that of the whole block. All kThreads
// threads of the block call it together with the same `shared` [kThreads]; ends with a barrier.
template <int kThreads, typename T>
__device__ T sum_before(T mine, T* shared, T* all) {
  shared[threadIdx.x] = mine;
  __syncthreads();
  T sum = mine;  // of this thread and the `width` - 1 before it
  for (int width = 1; width < kThreads; width *= 2) {
    if (threadIdx.x >= width) sum += shared[threadIdx.x - width];
    __syncthreads();  // all have read
    shared[threadIdx.x] = sum;
    __syncthreads();
  }
  *all = shared[kThreads - 1];
  __syncthreads();  // all have read what the next call changes
  return sum - mine;
}

}  // namespace aesg::gpu
