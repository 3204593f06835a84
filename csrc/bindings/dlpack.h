// The part of DLPack 1.x that direct_args.h reads: layout of its public C interface (dmlc/dlpack). torch's
// copy of the header is closed to code that keeps to the stable ABI.
#pragma once

#include <cstdint>

namespace aesg::dlpack {

enum : int32_t { kCpu = 1 };
enum : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBool = 6 };

struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t dims;
  DataType type;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct Version {
  uint32_t major, minor;
};
struct ManagedTensor {
  Version version;
  void* context;
  void (*deleter)(ManagedTensor*);
  uint64_t flags;
  Tensor tensor;
};
using SetError = void (*)(void* context, const char* kind, const char* message);

// What the capsule `torch.Tensor.__dlpack_c_exchange_api__` holds. All return 0, or -1 with an error set.
struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  int (*allocate)(Tensor* like, ManagedTensor** made, void* error_context, SetError set_error);
  int (*managed_from_object)(void* object, ManagedTensor** made);
  int (*to_object)(ManagedTensor* tensor, void** object);  // takes the tensor over
  int (*from_object)(void* object, Tensor* borrowed);      // valid while the object lives; may be null
  int (*current_stream)(int32_t device_type, int32_t device, void** stream);
};

}  // namespace aesg::dlpack
