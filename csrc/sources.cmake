# The one list of sources: read by CMakeLists.txt as CMake and by setup.py, which knows plain set() lines only.
# Patterns are relative to the repository root and may use `*`.

# Free of torch and Python: the store and the graph.
set(AESG_CORE_SOURCES csrc/base/*.cpp csrc/storage/*.cpp csrc/graph/*.cpp)
# Their Python face (pybind11).
set(AESG_CORE_BINDING_SOURCES
    csrc/bindings/answers_binding.cpp csrc/bindings/core_module.cpp csrc/bindings/graph_binding.cpp)
# Free of torch and Python: CPU kernels on plain pointers.
set(AESG_KERNEL_SOURCES csrc/ops/cpu/*.cpp)
# Free of torch: CUDA kernels and their launchers.
set(AESG_CUDA_SOURCES csrc/ops/gpu/*.cu)
# The ops as torch sees them (LibTorch stable ABI): schemas, checks, threading.
set(AESG_OPS_BINDING_SOURCES csrc/bindings/ops_module.cpp csrc/bindings/direct_calls.cpp csrc/ops/*.cpp)

# Every object file. No contraction: the same sums have the same bits with and without FMA in the machine.
set(AESG_CXX_FLAGS -std=c++17 -O3 -g0 -ffp-contract=off -fvisibility=hidden -fPIC -Wall -Wextra)
set(AESG_NVCC_FLAGS -std=c++17 -O3 --fmad=false -Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off)
set(AESG_CUDA_ARCHITECTURES 8.0 9.0 10.0+PTX)
