// aesg._ops as a Python module: calls of ops without torch's dispatcher. A short spreading takes one or two
// microseconds, the dispatcher some eight to convert fifteen arguments. Tensors are read through DLPack's C
// exchange interface. Only the plain case is handled, CPU tensors that are all as they should be; of anything
// else try_* returns None, and the caller asks the op, which says what is wrong.
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <exception>

#include "csrc/bindings/dlpack.h"
#include "csrc/ops/spread_call.h"

namespace aesg {
namespace {

const dlpack::ExchangeApi* api = nullptr;
PyObject* tensor_type = nullptr;

bool borrow(PyObject* object, dlpack::Tensor* made) {
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

bool is_of(const dlpack::Tensor& t, uint8_t code, uint8_t bits) {
  return t.type.code == code && t.type.bits == bits && t.type.lanes == 1;
}

bool is_of_kind(const dlpack::Tensor& t, const float*) { return is_of(t, dlpack::kFloat, 32); }
bool is_of_kind(const dlpack::Tensor& t, const int32_t*) { return is_of(t, dlpack::kInt, 32); }
bool is_of_kind(const dlpack::Tensor& t, const int64_t*) { return is_of(t, dlpack::kInt, 64); }
bool is_of_kind(const dlpack::Tensor& t, const uint8_t*) {
  return is_of(t, dlpack::kUInt, 8) || is_of(t, dlpack::kBool, 8);
}

// [batch, width], contiguous.
template <typename T>
bool read_matrix(PyObject* object, const T** made, int64_t* batch, int64_t* width) {
  dlpack::Tensor t;
  if (!borrow(object, &t) || !is_of_kind(t, *made) || t.dims != 2) return false;
  if ((t.shape[1] > 1 && t.strides[1] != 1) || (t.shape[0] > 1 && t.strides[0] != t.shape[1])) return false;
  *made = static_cast<const T*>(t.data);
  *batch = t.shape[0];
  *width = t.shape[1];
  return true;
}

// As column() in csrc/ops/tensor_args.h, which tells what is wrong where this only returns false.
template <typename T>
bool read_column(PyObject* object, int64_t width, Column<const T>* made, bool any_row_stride = false) {
  dlpack::Tensor t;
  if (!borrow(object, &t) || !is_of_kind(t, made->base)) return false;
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

bool read_number(PyObject* object, float* made) {  // finite and not negative
  if (!PyFloat_Check(object) && !PyLong_CheckExact(object)) return false;
  const double value = PyFloat_AsDouble(object);
  if (PyErr_Occurred() != nullptr) PyErr_Clear();  // an integer too large; the value is -1
  *made = static_cast<float>(value);
  return std::isfinite(value) && value >= 0;
}

bool read_integer(PyObject* object, int64_t least, int64_t most, int64_t* made) {
  if (!PyLong_CheckExact(object)) return false;
  int overflow = 0;
  *made = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow == 0 && *made >= least && *made <= most;
}

// A tensor [rows, columns] and its memory in one piece: half the time of asking torch's allocator for it.
struct Owned {
  dlpack::ManagedTensor managed;
  int64_t shape[2], strides[2];
};

PyObject* make_matrix(int64_t rows, int64_t columns, dlpack::DataType type, void** data) {
  constexpr size_t kAlign = 64;
  const size_t bytes = static_cast<size_t>(rows * columns) * type.bits / 8;
  auto* owned = static_cast<Owned*>(std::malloc(sizeof(Owned) + kAlign + bytes));
  if (owned == nullptr) return nullptr;
  const auto behind = reinterpret_cast<uintptr_t>(owned + 1);
  *data = reinterpret_cast<void*>((behind + kAlign - 1) / kAlign * kAlign);
  owned->shape[0] = rows;
  owned->shape[1] = owned->strides[0] = columns;
  owned->strides[1] = 1;
  owned->managed = {{1, 0},
                    owned,
                    [](dlpack::ManagedTensor* tensor) { std::free(tensor->context); },
                    0,
                    {*data, {dlpack::kCpu, 0}, 2, type, owned->shape, owned->strides, 0}};
  void* object = nullptr;
  if (api->to_object(&owned->managed, &object) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  return static_cast<PyObject*>(object);
}

constexpr Py_ssize_t kSpreadArguments = 14;
constexpr int64_t kMostHere = int64_t{1} << 24;  // results; more are the op's business

// (seed_indices, ..., active, regions or None, hops, decay, facilitation, source_floor, transfer_floor, k)
PyObject* try_spread_activation(PyObject*, PyObject* const* args, Py_ssize_t count) {
  SpreadCall call{};
  cpu::SpreadGraph& graph = call.graph;
  cpu::SpreadRules& rules = call.rules;
  int64_t batch = 0, width = 0;
  const bool plain =
      api != nullptr && count == kSpreadArguments &&
      read_matrix(args[0], &call.seeds, &call.batch, &call.width) &&
      read_matrix(args[1], &call.energies, &batch, &width) && batch == call.batch && width == call.width &&
      read_column(args[2], 0, &graph.first_block) &&
      read_column(args[3], cpu::kEdgesPerBlock, &graph.targets, true) &&
      read_column(args[4], cpu::kEdgesPerBlock, &graph.strengths, true) &&
      read_column(args[5], 0, &graph.next_block, true) && read_column(args[6], 0, &graph.active) &&
      (args[7] == Py_None || read_column(args[7], 0, &graph.regions)) &&
      read_integer(args[8], 0, INT64_MAX, &rules.hops) && read_number(args[9], &rules.decay) &&
      read_number(args[10], &rules.facilitation) && read_number(args[11], &rules.source_floor) &&
      read_number(args[12], &rules.transfer_floor) && read_integer(args[13], 1, kMostHere, &call.k) &&
      batch <= kMostHere / call.k;
  const int64_t slots = graph.first_block.rows, blocks = graph.targets.rows;
  const bool fits = slots <= INT32_MAX && graph.active.rows == slots && graph.strengths.rows == blocks &&
                    graph.next_block.rows == blocks && (!graph.regions || graph.regions.rows == slots);
  if (!plain || !fits) Py_RETURN_NONE;
  void *energies = nullptr, *indices = nullptr;
  PyObject* first = make_matrix(batch, call.k, {dlpack::kFloat, 32, 1}, &energies);
  PyObject* second = make_matrix(batch, call.k, {dlpack::kInt, 64, 1}, &indices);
  bool whole = false;
  if (first != nullptr && second != nullptr) {
    PyThreadState* const state = PyEval_SaveThread();
    try {
      whole = try_spread(call, static_cast<float*>(energies), static_cast<int64_t*>(indices));
    } catch (const std::exception&) {  // no memory: the op will say so
    }
    PyEval_RestoreThread(state);
  }
  PyObject* both = whole ? PyTuple_Pack(2, first, second) : nullptr;
  Py_XDECREF(first);
  Py_XDECREF(second);
  if (whole) return both;
  Py_RETURN_NONE;
}

// (torch.Tensor): whether its exchange interface is one that is known here. Without it try_* return None.
PyObject* use_tensor_type(PyObject*, PyObject* type) {
  PyObject* capsule = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
  const void* found = capsule == nullptr ? nullptr : PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
  Py_XDECREF(capsule);
  PyErr_Clear();
  const auto* candidate = static_cast<const dlpack::ExchangeApi*>(found);
  if (candidate != nullptr && candidate->version.major == 1 && candidate->from_object != nullptr) {
    Py_INCREF(type);
    tensor_type = type;
    api = candidate;
  }
  return PyBool_FromLong(api != nullptr);
}

PyMethodDef methods[] = {
    {"try_spread_activation", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(try_spread_activation)),
     METH_FASTCALL, "(energies, indices) of spread_activation, or None where only the op will do."},
    {"use_tensor_type", use_tensor_type, METH_O, "Takes torch.Tensor; whether calls can be made directly."},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_ops", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace aesg

PyMODINIT_FUNC PyInit__ops() { return PyModule_Create(&aesg::definition); }
