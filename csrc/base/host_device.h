// AESG_HD: compiled for the host, and for the device where nvcc reads it.
#pragma once

#if defined(__CUDACC__)
#define AESG_HD __host__ __device__
#else
#define AESG_HD
#endif
