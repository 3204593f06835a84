// What the bindings need on a CUDA device, through the stable ABI: the current stream, workspace, launch
// checks.
#pragma once

#if defined(AESG_WITH_CUDA)

#include <torch/csrc/stable/accelerator.h>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/tensor_args.h"

// Weak: CPU builds of torch lack it, and the library must load there too.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device,
                                                                                   void** stream);

namespace aesg {

// The device of a tensor is current for as long as this lives, and `stream` is its current stream.
struct OnDevice {
  explicit OnDevice(const Tensor& tensor) : guard(tensor.get_device_index()) {
    expect(aoti_torch_get_current_cuda_stream != nullptr, kMemoryError,
           "device: expected a torch with CUDA for tensors on a CUDA device, got one without");
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  }
  torch::stable::accelerator::DeviceGuard guard;
  gpu::Stream stream = nullptr;
};

// From torch's caching allocator, which keeps it alive for the stream's work after the handle is gone.
inline Tensor make_workspace(const Tensor& like, size_t bytes) {
  return make_tensor(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
}

inline void expect_launched(int error, const char* op) {
  expect(error == 0, "", op, ": the CUDA launch failed: ", gpu::error_text(error));
}

}  // namespace aesg

#endif
