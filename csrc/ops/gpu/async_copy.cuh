// Copies from global to shared memory that pass by the registers and run while the thread goes on (cp.async).
// A thread's copies up to a commit are a group; groups end in order. A thread that waited sees its own
// copies, and after a barrier those of all threads that waited before it.
#pragma once

namespace aesg::gpu {

#if defined(__CUDACC__)

__device__ inline unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}

// 16 bytes; both addresses are multiples of 16. Not kept in the first cache: rows are read once.
__device__ inline void copy_16(void* to_shared, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to_shared)), "l"(from)
               : "memory");
}

// 4 bytes, for rows that begin anywhere.
__device__ inline void copy_4(void* to_shared, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to_shared)), "l"(from)
               : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all groups but the `kLeft` last have landed.
template <int kLeft>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

#else  // run on the host by tests/ops/on_host/cuda_on_host.h

inline void copy_16(void* to_shared, const void* from) { on_host::copy_later(to_shared, from, 16); }
inline void copy_4(void* to_shared, const void* from) { on_host::copy_later(to_shared, from, 4); }
inline void commit_copies() { on_host::commit_copies(); }
template <int kLeft>
void wait_for_copies() {
  on_host::wait_for_copies(kLeft);
}

#endif

}  // namespace aesg::gpu
