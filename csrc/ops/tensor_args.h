// From torch tensors to what kernels take: checks with typed messages, columns, outputs. Stable ABI only.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "csrc/ops/columns.h"

namespace aesg {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Python turns a message with such a prefix into the error of that name (aesg/_extension.py).
inline constexpr const char* kNavigationError = "AESGNavigationError: ";  // a query cannot be searched with
inline constexpr const char* kMemoryError = "AESGMemoryError: ";          // anything else about arguments

inline constexpr int64_t kMostResults = int64_t{1} << 33;  // 96 GiB of scores and slots

template <typename... Parts>
void expect(bool good, const char* error, const Parts&... parts) {
  if (__builtin_expect(good, 1)) return;
  std::ostringstream text;
  text << error;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// Written into a message only when one is made: formatting costs more than a small search.
struct shape_of {
  const Tensor& tensor;
};
inline std::ostream& operator<<(std::ostream& text, const shape_of& shape) {
  text << '[';
  for (int64_t i = 0; i < shape.tensor.dim(); ++i) text << (i ? ", " : "") << shape.tensor.size(i);
  return text << ']';
}

inline const char* type_name(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::UInt32:
      return "uint32";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another type";
  }
}

template <typename T>
struct TypeRule;  // which tensor types may be read as T
template <>
struct TypeRule<float> {
  static constexpr const char* kName = "float32";
  static bool fits(ScalarType t) { return t == ScalarType::Float; }
};
template <>
struct TypeRule<double> {
  static constexpr const char* kName = "float64";
  static bool fits(ScalarType t) { return t == ScalarType::Double; }
};
template <>
struct TypeRule<int32_t> {
  static constexpr const char* kName = "int32";
  static bool fits(ScalarType t) { return t == ScalarType::Int; }
};
template <>
struct TypeRule<uint32_t> {  // stored columns are uint32, seen by torch as int32
  static constexpr const char* kName = "int32 or uint32";
  static bool fits(ScalarType t) { return t == ScalarType::Int || t == ScalarType::UInt32; }
};
template <>
struct TypeRule<int64_t> {
  static constexpr const char* kName = "int64";
  static bool fits(ScalarType t) { return t == ScalarType::Long; }
};
template <>
struct TypeRule<uint8_t> {
  static constexpr const char* kName = "bool or uint8";
  static bool fits(ScalarType t) { return t == ScalarType::Byte || t == ScalarType::Bool; }
};

template <typename T>
void expect_type(const Tensor& t, const char* name, const char* error = kMemoryError) {
  const ScalarType type = t.scalar_type();
  expect(TypeRule<T>::fits(type), error, name, ": expected ", TypeRule<T>::kName, ", got ", type_name(type));
}

// The kind of device as torch numbers it; a meta tensor has no index to tell it from one on the CPU.
inline int32_t device_type(const Tensor& t) {
  int32_t type = -1;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &type));
  return type;
}

inline void expect_same_device(const Tensor& t, const char* name, const Tensor& with, const char* with_name) {
  expect(device_type(t) == device_type(with) && t.get_device_index() == with.get_device_index(), kMemoryError,
         name, ": expected the device of ", with_name, ", got another");
}

inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }

// Type and number of dimensions of a small tensor.
template <typename T>
void expect_dense(const Tensor& t, const char* name, int64_t dims, const char* shape,
                  const char* error = kMemoryError) {
  expect_type<T>(t, name, error);
  expect(t.dim() == dims, error, name, ": expected shape ", shape, ", got ", shape_of{t});
}

inline void expect_shape(const Tensor& t, const char* name, std::initializer_list<int64_t> sizes,
                         const char* error = kNavigationError) {
  bool fits = t.dim() == static_cast<int64_t>(sizes.size());
  for (int64_t i = 0; fits && i < t.dim(); ++i) fits = t.size(i) == sizes.begin()[i];
  std::ostringstream wanted;
  if (!fits)
    for (const int64_t size : sizes) wanted << (wanted.tellp() > 0 ? ", " : "") << size;
  expect(fits, error, name, ": expected shape [", wanted.str(), "], got ", shape_of{t});
}

// A column: flat [N] / [N, width] or grouped [G, 1024] / [G, 1024, width]; width 0 stands for no last
// dimension. Rows are `width` contiguous values. Groups may lie anywhere; rows of a group follow each other,
// or may lie anywhere too with `any_row_stride` (block columns: a block's fields share one cache line).
template <typename T>
Column<T> column(const Tensor& t, const char* name, int64_t width, bool any_row_stride = false) {
  using Plain = std::remove_const_t<T>;
  expect_type<Plain>(t, name);
  const int64_t tail = width > 0 ? 1 : 0, dims = t.dim() - tail;
  expect(dims == 1 || dims == 2, kMemoryError, name, ": expected shape ",
         tail ? "[N, width] or [G, 1024, width]" : "[N] or [G, 1024]", ", got ", shape_of{t});
  const int64_t* size = t.sizes().data();
  const int64_t* stride = t.strides().data();
  const int64_t rows = size[dims - 1], row_stride = stride[dims - 1];
  expect(tail == 0 || size[dims] == width, kMemoryError, name, ": expected ", width, " values a row, got ",
         shape_of{t});
  expect(dims == 1 || rows == kRowsPerGroup, kMemoryError, name, ": expected groups of ", kRowsPerGroup,
         " rows, got ", shape_of{t});
  const bool packed = rows <= 1 || row_stride == (tail ? width : 1);
  const bool dense_row = tail == 0 || width <= 1 || stride[dims] == 1;
  expect((packed || any_row_stride) && dense_row, kMemoryError, name,
         ": expected contiguous rows, got a strided view of shape ", shape_of{t});

  Column<T> made;
  made.base = static_cast<T*>(t.data_ptr());
  made.row_stride = rows <= 1 && !any_row_stride ? (tail ? width : 1) : row_stride;
  made.rows = rows;
  if (dims == 2) {
    made.rows = size[0] * rows;
    made.group_stride = stride[0];
    made.shift = kGroupShift;
    made.mask = kRowsPerGroup - 1;
  }
  return made;
}

// The same for an optional column that must have `rows` rows; a null column when it was not given.
template <typename T>
Column<T> optional_column(const std::optional<Tensor>& t, const char* name, int64_t rows, const Tensor& with,
                          const char* with_name) {
  if (!t.has_value()) return {};
  expect_same_device(*t, name, with, with_name);
  const Column<T> made = column<T>(*t, name, 0);
  expect(made.rows == rows, kMemoryError, name, ": expected ", rows, " rows as in ", with_name, ", got ",
         shape_of{*t});
  return made;
}

// An uninitialised contiguous tensor on the device of `like`; about a third of the time of new_empty.
inline Tensor make_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  int64_t strides[4], next = 1;
  const int64_t* size = sizes.begin();
  for (int64_t i = static_cast<int64_t>(sizes.size()) - 1; i >= 0; --i) {
    strides[i] = next;
    next *= std::max<int64_t>(size[i], 1);
  }
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), size, strides,
                               torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
                               like.is_cuda() ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu(),
                               like.get_device_index(), &handle));
  return Tensor(handle);
}

// How many results a query wants: at least one, and few enough that a result of [B, k] can be asked for at
// all.
inline void expect_k(int64_t k, int64_t batch) {
  expect(k >= 1, kNavigationError, "k: expected an integer >= 1, got ", k);
  expect(k <= kMostResults / std::max<int64_t>(batch, 1), kNavigationError, "k: expected at most ",
         kMostResults / std::max<int64_t>(batch, 1), " for ", batch, " queries, got ", k);
}

inline bool all_finite(const float* values, int64_t n) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, values + i, 4);
    bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

}  // namespace aesg
