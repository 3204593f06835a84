// aesg._ops as a Python module: calls of ops without torch's dispatcher. A short search or spreading takes
// one or two microseconds, the dispatcher some eight to convert a dozen arguments. Only the plain case is
// handled, CPU tensors that are all as they should be; of anything else try_* returns None, and the caller
// asks the op, which says what is wrong. Arguments are those of the op, in its order.
#include "csrc/bindings/direct_args.h"
#include "csrc/ops/plain_calls.h"

namespace aesg::direct {
namespace {

// (queries, vectors, k, inv_norm or None, active or None, count or None, min_score, exact)
PyObject* try_seed_search(PyObject*, PyObject* const* args, Py_ssize_t count) {
  cpu::SeedSearch job{};
  int64_t k = 0;
  bool plain = count == 8 && read_dense(args[0], &job.queries, {&job.batch, &job.dim}) && job.dim >= 1 &&
               read_column(args[1], job.dim, &job.vectors) && read_integer(args[2], 1, INT64_MAX, &k);
  const int64_t rows = job.vectors.rows;
  job.count = rows;
  plain = plain && read_optional_rows(args[3], rows, &job.inv_norm) &&
          read_optional_rows(args[4], rows, &job.active) &&
          (args[5] == Py_None || read_integer(args[5], 0, rows, &job.count)) &&
          read_number(args[6], &job.min_score) && read_flag(args[7], &job.exact);
  if (!plain) Py_RETURN_NONE;
  Results results;
  float* const scores = results.add_floats({job.batch, k});
  int64_t* const slots = results.add_slots({job.batch, k});
  return results.filled_by([&] { run_seed_search(job, k, scores, slots); });
}

bool read_panels(PyObject* object, int64_t dim, cpu::Panels* made) {
  const uint8_t* base = nullptr;
  if (!read_dense(object, &base, {&made->count, &made->bytes})) return false;
  made->base = const_cast<uint8_t*>(base);  // only read by a search
  return made->bytes == cpu::panel_bytes(dim) && reinterpret_cast<uintptr_t>(base) % alignof(int32_t) == 0;
}

// (queries, vectors, k, inv_norm, active, centers, heads, panels, pending, probes, pool, min_score)
PyObject* try_region_search(PyObject*, PyObject* const* args, Py_ssize_t count) {
  cpu::RegionSearch job{};
  const bool plain =
      count == 12 && read_dense(args[0], &job.queries, {&job.batch, &job.dim}) && job.dim >= 1 &&
      read_column(args[1], job.dim, &job.vectors) && read_integer(args[2], 1, INT64_MAX, &job.k) &&
      read_rows(args[3], job.vectors.rows, &job.inv_norm) &&
      read_rows(args[4], job.vectors.rows, &job.active) && read_panels(args[5], job.dim, &job.centers) &&
      read_dense(args[6], &job.heads, {&job.cells}) && read_panels(args[7], job.dim, &job.panels) &&
      read_dense(args[8], &job.pending, {&job.pending_count}) &&
      read_integer(args[9], 0, INT64_MAX, &job.probes) && read_integer(args[10], 1, INT64_MAX, &job.pool) &&
      read_number(args[11], &job.min_score);
  if (!plain || job.centers.count != cpu::panels_of(job.cells)) Py_RETURN_NONE;
  job.pool = std::min(job.pool, std::max<int64_t>(job.vectors.rows, 1));
  Results results;
  float* const scores = results.add_floats({job.batch, job.k});
  int64_t* const slots = results.add_slots({job.batch, job.k});
  return results.filled_by([&] { run_region_search(job, scores, slots); });
}

// (first_block, targets, strengths, next_block, active, regions or None)
bool read_graph(PyObject* const* args, cpu::SpreadGraph* made) {
  return read_column(args[0], 0, &made->first_block) && made->first_block.rows <= INT32_MAX &&
         read_column(args[1], cpu::kEdgesPerBlock, &made->targets, true) &&
         read_column(args[2], cpu::kEdgesPerBlock, &made->strengths, true) &&
         made->strengths.rows == made->targets.rows && read_column(args[3], 0, &made->next_block, true) &&
         made->next_block.rows == made->targets.rows &&
         read_rows(args[4], made->first_block.rows, &made->active) &&
         read_optional_rows(args[5], made->first_block.rows, &made->regions);
}

// (hops, decay, facilitation, source_floor, transfer_floor)
bool read_rules(PyObject* const* args, cpu::SpreadRules* made) {
  return read_integer(args[0], 0, INT64_MAX, &made->hops) && read_amount(args[1], &made->decay) &&
         read_amount(args[2], &made->facilitation) && read_amount(args[3], &made->source_floor) &&
         read_amount(args[4], &made->transfer_floor);
}

// (seed_indices, seed_energies, 6 of the graph, 5 rules, k)
PyObject* try_spread_activation(PyObject*, PyObject* const* args, Py_ssize_t count) {
  SpreadCall call{};
  const bool plain = count == 14 && read_dense(args[0], &call.seeds, {&call.batch, &call.width}) &&
                     read_matrix(args[1], call.batch, call.width, &call.energies) &&
                     read_graph(args + 2, &call.graph) && read_rules(args + 8, &call.rules) &&
                     read_integer(args[13], 1, INT64_MAX, &call.k);
  if (!plain) Py_RETURN_NONE;
  Results results;
  float* const energies = results.add_floats({call.batch, call.k});
  int64_t* const slots = results.add_slots({call.batch, call.k});
  return results.filled_by([&] { run_spread_activation(call, energies, slots); });
}

// (primed, primed_ids, primed_energies), or None thrice, which leaves the ids of the slots unread.
bool read_priming(PyObject* const* args, PyObject* ids, int64_t batch, int64_t slots, cpu::Priming* made) {
  if (args[0] == Py_None) {
    dlpack::Tensor any;
    return args[1] == Py_None && args[2] == Py_None && (ids == Py_None || borrow(ids, &any));
  }
  int64_t rows = 0;
  return read_dense(args[0], &made->slots, {&rows, &made->count}) && rows == batch &&
         read_matrix(args[1], batch, made->count, &made->ids) &&
         read_matrix(args[2], batch, made->count, &made->energies) &&
         read_optional_rows(ids, slots, &made->current_id);
}

bool read_bars(PyObject* object, int64_t batch, const float** made) {
  int64_t size = batch;
  return (object == Py_None || read_dense(object, made, {&size})) && size == batch;
}

// (similarities, seeds, bar or None, 3 of the priming, vectors, ids or None, 6 of the graph, relative,
// priming, 5 rules, k, gather, jacobian)
PyObject* try_activate_context(PyObject*, PyObject* const* args, Py_ssize_t count) {
  ContextCall call{};
  cpu::ContextRules& context = call.context;
  const bool plain =
      count == 24 && read_dense(args[1], &call.seeds, {&call.batch, &context.seeds}) &&
      read_matrix(args[0], call.batch, context.seeds, &call.similarities) &&
      read_bars(args[2], call.batch, &call.bars) && read_vectors(args[6], &call.dim, &call.vectors) &&
      read_graph(args + 8, &call.graph) && call.vectors.rows == call.graph.first_block.rows &&
      read_priming(args + 3, args[7], call.batch, call.vectors.rows, &call.priming) &&
      read_number(args[14], &context.relative) && read_amount(args[15], &call.priming.share) &&
      read_rules(args + 16, &call.rules) && read_integer(args[21], 1, INT64_MAX, &context.members) &&
      read_flag(args[22], &call.gather) && read_flag(args[23], &context.jacobian);
  if (!plain) Py_RETURN_NONE;
  const int64_t batch = call.batch, seeds = context.seeds, k = context.members;
  Results results;
  ContextResults to{};
  to.seeds = results.add_slots({batch, seeds});
  to.similarities = results.add_floats({batch, seeds});
  to.members = results.add_slots({batch, k});
  to.energies = results.add_floats({batch, k});
  to.vectors = results.add_floats({call.gathered(), k, call.dim});
  to.jacobian = results.add_floats({call.traced(), k, seeds});
  to.seed_vectors = results.add_floats({call.traced(), seeds, call.dim});
  return results.filled_by([&] { run_activate_context(call, to); });
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

template <typename Call>
PyCFunction as_function(Call* call) {  // Python calls it as METH_FASTCALL says, whatever its type
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call));
}

PyMethodDef methods[] = {
    {"try_seed_search", as_function(try_seed_search), METH_FASTCALL,
     "(scores, indices) of seed_search, or None where only the op will do."},
    {"try_region_search", as_function(try_region_search), METH_FASTCALL,
     "(scores, indices) of region_search, or None where only the op will do."},
    {"try_spread_activation", as_function(try_spread_activation), METH_FASTCALL,
     "(energies, indices) of spread_activation, or None where only the op will do."},
    {"try_activate_context", as_function(try_activate_context), METH_FASTCALL,
     "The seven tensors of activate_context, or None where only the op will do."},
    {"use_tensor_type", use_tensor_type, METH_O, "Takes torch.Tensor; whether calls can be made directly."},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_ops", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace aesg::direct

PyMODINIT_FUNC PyInit__ops() { return PyModule_Create(&aesg::direct::definition); }
