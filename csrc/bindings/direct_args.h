// What direct calls take and give back. Arguments are read through DLPack's C exchange interface: each read_*
// says whether an argument is plain, and writes what it says, or leaves the op to tell what is wrong.
#pragma once

#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <initializer_list>

#include "csrc/bindings/dlpack.h"
#include "csrc/ops/columns.h"

namespace aesg::direct {

// Null until use_tensor_type found them. Then nothing is a tensor, and no call is made directly.
inline const dlpack::ExchangeApi* api = nullptr;
inline PyObject* tensor_type = nullptr;

// A CPU tensor of that very type, valid while the object lives.
inline bool borrow(PyObject* object, dlpack::Tensor* made) {
  if (reinterpret_cast<PyObject*>(Py_TYPE(object)) != tensor_type) return false;
  if (api->from_object(object, made) != 0) {  // a wrapper without memory of its own, say
    PyErr_Clear();
    return false;
  }
  if (made->data == nullptr) {  // of zeros that are only said to be there; fine where there are none
    int64_t values = 1;
    for (int32_t i = 0; i < made->dims; ++i) values *= made->shape[i];
    return values == 0 && made->device.type == dlpack::kCpu;
  }
  made->data = static_cast<char*>(made->data) + made->byte_offset;
  return made->device.type == dlpack::kCpu;
}

inline bool is_of(const dlpack::Tensor& t, uint8_t code, uint8_t bits) {
  return t.type.code == code && t.type.bits == bits && t.type.lanes == 1;
}

inline bool is_of_kind(const dlpack::Tensor& t, const float*) { return is_of(t, dlpack::kFloat, 32); }
inline bool is_of_kind(const dlpack::Tensor& t, const int32_t*) { return is_of(t, dlpack::kInt, 32); }
inline bool is_of_kind(const dlpack::Tensor& t, const int64_t*) { return is_of(t, dlpack::kInt, 64); }
inline bool is_of_kind(const dlpack::Tensor& t, const uint8_t*) {
  return is_of(t, dlpack::kUInt, 8) || is_of(t, dlpack::kBool, 8);
}

inline bool is_contiguous(const dlpack::Tensor& t) {
  int64_t next = 1;
  for (int32_t i = t.dims - 1; i >= 0; --i) {
    if (t.shape[i] == 0) return true;  // strides of nothing
    if (t.shape[i] > 1 && t.strides[i] != next) return false;
    next *= t.shape[i];
  }
  return true;
}

// A contiguous tensor of as many dimensions as there are sizes to write.
template <typename T>
bool read_dense(PyObject* object, const T** made, std::initializer_list<int64_t*> sizes) {
  dlpack::Tensor t;
  if (!borrow(object, &t) || !is_of_kind(t, *made)) return false;
  if (t.dims != static_cast<int32_t>(sizes.size()) || !is_contiguous(t)) return false;
  *made = static_cast<const T*>(t.data);
  const int64_t* found = t.shape;
  for (int64_t* size : sizes) *size = *found++;
  return true;
}

// The same, [rows, columns] exactly.
template <typename T>
bool read_matrix(PyObject* object, int64_t rows, int64_t columns, const T** made) {
  int64_t found_rows = 0, found_columns = 0;
  return read_dense(object, made, {&found_rows, &found_columns}) && found_rows == rows &&
         found_columns == columns;
}

// As column() in csrc/ops/tensor_args.h, which tells what is wrong where this only returns false.
template <typename T>
bool as_column(const dlpack::Tensor& t, int64_t width, Column<const T>* made, bool any_row_stride) {
  if (!is_of_kind(t, made->base)) return false;
  const int tail = width > 0 ? 1 : 0, dims = t.dims - tail;
  if (dims != 1 && dims != 2) return false;
  const int64_t rows = t.shape[dims - 1], packed = tail ? width : 1;
  if (tail != 0 && (t.shape[dims] != width || t.strides[dims] != 1)) return false;
  if (dims == 2 && rows != kRowsPerGroup) return false;
  if (!any_row_stride && rows > 1 && t.strides[dims - 1] != packed) return false;
  made->base = static_cast<const T*>(t.data);
  made->rows = rows;
  made->row_stride = rows <= 1 && !any_row_stride ? packed : t.strides[dims - 1];
  if (dims == 2) {
    made->rows = t.shape[0] * rows;
    made->group_stride = t.strides[0];
    made->shift = kGroupShift;
    made->mask = kRowsPerGroup - 1;
  }
  return true;
}

// Width 0 stands for no last dimension.
template <typename T>
bool read_column(PyObject* object, int64_t width, Column<const T>* made, bool any_row_stride = false) {
  dlpack::Tensor t;
  return borrow(object, &t) && as_column(t, width, made, any_row_stride);
}

// Of so many rows.
template <typename T>
bool read_rows(PyObject* object, int64_t rows, Column<const T>* made) {
  return read_column(object, 0, made) && made->rows == rows;
}

// The same, or None: no column.
template <typename T>
bool read_optional_rows(PyObject* object, int64_t rows, Column<const T>* made) {
  return object == Py_None || read_rows(object, rows, made);
}

// Rows of any width, which is written.
template <typename T>
bool read_vectors(PyObject* object, int64_t* width, Column<const T>* made) {
  dlpack::Tensor t;
  if (!borrow(object, &t) || t.dims < 2) return false;
  *width = t.shape[t.dims - 1];
  return *width >= 1 && as_column(t, *width, made, false);
}

inline bool read_number(PyObject* object, float* made) {  // or an infinity, but not NaN
  if (!PyFloat_Check(object) && !PyLong_CheckExact(object)) return false;
  const double value = PyFloat_AsDouble(object);
  if (value == -1.0 && PyErr_Occurred() != nullptr) {  // an integer too large
    PyErr_Clear();
    return false;
  }
  *made = static_cast<float>(value);
  return !std::isnan(value);
}

inline bool read_amount(PyObject* object, float* made) {  // finite and not negative
  if (!PyFloat_Check(object) && !PyLong_CheckExact(object)) return false;
  const double value = PyFloat_AsDouble(object);
  if (PyErr_Occurred() != nullptr) PyErr_Clear();  // an integer too large; the value is -1
  *made = static_cast<float>(value);
  return std::isfinite(value) && value >= 0;
}

inline bool read_integer(PyObject* object, int64_t least, int64_t most, int64_t* made) {
  if (!PyLong_CheckExact(object)) return false;
  int overflow = 0;
  *made = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow == 0 && *made >= least && *made <= most;
}

inline bool read_flag(PyObject* object, bool* made) {
  *made = object == Py_True;
  return object == Py_True || object == Py_False;
}

// A result and its memory in one piece: half the time of asking torch's allocator for it.
struct Owned {
  static constexpr int kMostDims = 3;
  dlpack::ManagedTensor managed;
  int64_t shape[kMostDims], strides[kMostDims];
};

inline PyObject* make_tensor(std::initializer_list<int64_t> sizes, dlpack::DataType type, void** data) {
  constexpr size_t kAlign = 64;
  int64_t values = 1;
  for (const int64_t size : sizes) values *= size;
  const size_t bytes = static_cast<size_t>(values) * type.bits / 8;
  auto* owned = static_cast<Owned*>(std::malloc(sizeof(Owned) + kAlign + bytes));
  if (owned == nullptr) return nullptr;
  const auto behind = reinterpret_cast<uintptr_t>(owned + 1);
  *data = reinterpret_cast<void*>((behind + kAlign - 1) / kAlign * kAlign);
  const auto dims = static_cast<int32_t>(sizes.size());
  int64_t next = 1;
  for (int32_t i = dims - 1; i >= 0; --i) {
    owned->shape[i] = sizes.begin()[i];
    owned->strides[i] = next;
    next *= std::max<int64_t>(owned->shape[i], 1);
  }
  owned->managed = {{1, 0},
                    owned,
                    [](dlpack::ManagedTensor* tensor) { std::free(tensor->context); },
                    0,
                    {*data, {dlpack::kCpu, 0}, dims, type, owned->shape, owned->strides, 0}};
  void* object = nullptr;
  if (api->to_object(&owned->managed, &object) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  return static_cast<PyObject*>(object);
}

// The tensors a call returns, uninitialised until it ran.
class Results {
 public:
  Results() = default;
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
  ~Results() {
    for (int i = 0; i < count_; ++i) Py_XDECREF(objects_[i]);
  }

  float* add_floats(std::initializer_list<int64_t> sizes) {
    return static_cast<float*>(add(sizes, {dlpack::kFloat, 32, 1}));
  }
  int64_t* add_slots(std::initializer_list<int64_t> sizes) {
    return static_cast<int64_t*>(add(sizes, {dlpack::kInt, 64, 1}));
  }

  // A tuple of them once `run` has filled them, without Python's lock; None where only the op will do.
  template <typename Run>
  PyObject* filled_by(const Run& run) {
    if (whole_) {
      PyThreadState* const state = PyEval_SaveThread();
      try {
        run();
      } catch (const std::exception&) {  // bad values or no memory: the op will say so
        whole_ = false;
      }
      PyEval_RestoreThread(state);
    }
    PyObject* tuple = whole_ ? PyTuple_New(count_) : nullptr;
    if (tuple == nullptr) {
      PyErr_Clear();
      Py_RETURN_NONE;
    }
    for (int i = 0; i < count_; ++i) {
      PyTuple_SetItem(tuple, i, objects_[i]);  // takes it over
      objects_[i] = nullptr;
    }
    return tuple;
  }

 private:
  static constexpr int kMost = 7;
  static constexpr int64_t kMostValues = int64_t{1} << 24;  // of one result; more are the op's business

  void* add(std::initializer_list<int64_t> sizes, dlpack::DataType type) {
    int64_t left = kMostValues;
    for (const int64_t size : sizes) {
      if (size > left) whole_ = false;
      left /= std::max<int64_t>(size, 1);
    }
    if (!whole_) return nullptr;
    void* data = nullptr;
    objects_[count_] = make_tensor(sizes, type, &data);
    whole_ = objects_[count_++] != nullptr;
    return data;
  }

  PyObject* objects_[kMost] = {};
  int count_ = 0;
  bool whole_ = true;
};

}  // namespace aesg::direct
