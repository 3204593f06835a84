// Python face of csrc/graph: bulk functions on a Store. Arguments are checked here, before anything changes.
#include "csrc/bindings/graph_binding.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "csrc/base/error.h"
#include "csrc/graph/abstraction.h"
#include "csrc/graph/adjacency.h"
#include "csrc/graph/check.h"
#include "csrc/graph/common_part.h"
#include "csrc/graph/population.h"
#include "csrc/graph/reinforce.h"
#include "csrc/graph/reorganize.h"
#include "csrc/graph/sweep.h"

namespace py = pybind11;

namespace aesg::bindings {
namespace {

using graph::EdgeKind;
using storage::Store;

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
using StorePtr = std::shared_ptr<Store>;

void require_writable(Store& store) {
  if (store.closed()) throw StorageError("The store " + store.directory() + " is closed");
  if (store.read_only()) throw StorageError("The store " + store.directory() + " is open for reading only");
}

void require_length(const char* name, int64_t expected, int64_t given) {
  if (expected == given) return;
  throw ArgumentError(std::string(name) + ": expected " + std::to_string(expected) + " values, got " +
                      std::to_string(given));
}

void require_living(Store& store, const char* name, const int64_t* slots, int64_t n) {
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t i = 0; i < n; ++i) {
    if (slots[i] < 0 || slots[i] >= count)
      throw ArgumentError(std::string(name) + ": expected slots in 0.." + std::to_string(count - 1) +
                          ", got " + std::to_string(slots[i]));
    if (!graph::is_active(store, slots[i]))
      throw ArgumentError(std::string(name) + ": slot " + std::to_string(slots[i]) +
                          " holds no living concept");
  }
}

void require_finite(const char* name, const float* values, int64_t n) {
  // A block at a time without a branch inside, which compilers turn into vector instructions.
  constexpr int64_t kBlock = 1024;
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t end = std::min(first + kBlock, n);
    uint32_t odd = 0;
    for (int64_t i = first; i < end; ++i) {
      uint32_t bits;
      std::memcpy(&bits, values + i, sizeof bits);
      odd |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (!odd) continue;
    const float* bad = std::find_if(values + first, values + end, [](float x) { return !std::isfinite(x); });
    throw ArgumentError(std::string(name) + ": expected finite values, got " + std::to_string(*bad));
  }
}

void require_unit(const char* name, const float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!(values[i] >= 0.0f && values[i] <= 1.0f))
      throw ArgumentError(std::string(name) + ": expected values in [0, 1], got " +
                          std::to_string(values[i]));
}

// Identities that are given from outside: 1..2^64-2 (0 is a free slot's, the counter stands behind the last),
// different, and held by no slot in use.
void require_new_ids(Store& store, const uint64_t* ids, int64_t n) {
  std::unordered_set<uint64_t> wanted;
  uint64_t least = std::numeric_limits<uint64_t>::max();
  for (int64_t i = 0; i < n; ++i) {
    if (ids[i] == 0 || ids[i] == std::numeric_limits<uint64_t>::max())
      throw ArgumentError("ids: expected 1..2**64-2, got " + std::to_string(ids[i]));
    if (!wanted.insert(ids[i]).second)
      throw ArgumentError("ids: expected different ones, got " + std::to_string(ids[i]) + " twice");
    least = std::min(least, ids[i]);
  }
  if (least >= store.counters().next_id) return;
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t slot = 0; slot < count; ++slot) {
    const uint64_t id = *store.at<uint64_t>(storage::NodeColumn::kId, slot);
    if (wanted.count(id))
      throw ArgumentError("ids: expected new ones, got " + std::to_string(id) + ", which is taken");
  }
}

py::array_t<int64_t> bear(const StorePtr& store, const Array<float>& vectors, uint64_t now, float relevance,
                          float stability, bool log, const py::object& ids) {
  require_writable(*store);
  if (vectors.ndim() != 2 || vectors.shape(1) != store->layout().dim())
    throw ArgumentError("vectors: expected shape [n, " + std::to_string(store->layout().dim()) + "], got " +
                        py::str(py::tuple(vectors.attr("shape"))).cast<std::string>());
  const int64_t n = vectors.shape(0);
  require_finite("vectors", vectors.data(), vectors.size());
  Array<uint64_t> id_array;
  const uint64_t* id_data = nullptr;
  if (!ids.is_none()) {
    id_array = ids.cast<Array<uint64_t>>();
    require_length("ids", n, id_array.size());
    id_data = id_array.data();
    require_new_ids(*store, id_data, n);
  }
  std::vector<int64_t> slots;
  {
    py::gil_scoped_release release;
    slots = graph::bear(*store, vectors.data(), id_data, n, {now, relevance, stability, log});
  }
  return py::array_t<int64_t>(static_cast<py::ssize_t>(slots.size()), slots.data());
}

int64_t put_edges(const StorePtr& store, const Array<int64_t>& sources, const Array<int64_t>& targets,
                  const Array<float>& weights, const Array<float>& confidences, int kind, bool up) {
  require_writable(*store);
  const int64_t n = sources.size();
  require_length("targets", n, targets.size());
  require_length("weights", n, weights.size());
  require_length("confidences", n, confidences.size());
  if (kind < 0 || kind > 2)
    throw ArgumentError("kind: expected 0 (similarity), 1 (succession) or 2 (abstraction), got " +
                        std::to_string(kind));
  require_living(*store, "sources", sources.data(), n);
  require_living(*store, "targets", targets.data(), n);
  require_unit("weights", weights.data(), n);
  require_unit("confidences", confidences.data(), n);
  for (int64_t i = 0; i < n; ++i)
    if (sources.data()[i] == targets.data()[i])
      throw ArgumentError("edges: expected two different concepts, got slot " +
                          std::to_string(sources.data()[i]) + " twice");
  py::gil_scoped_release release;
  int64_t fresh = 0;
  for (int64_t i = 0; i < n; ++i)
    fresh += graph::put_edge(*store, sources.data()[i], static_cast<int32_t>(targets.data()[i]),
                             static_cast<EdgeKind>(kind), weights.data()[i], confidences.data()[i],
                             up && kind == static_cast<int>(EdgeKind::kAbstraction));
  return fresh;
}

int64_t retire(const StorePtr& store, const Array<int64_t>& slots, uint64_t now) {
  require_writable(*store);
  const int64_t count = static_cast<int64_t>(store->counters().node_count);
  for (int64_t i = 0; i < slots.size(); ++i)
    if (slots.data()[i] < 0 || slots.data()[i] >= count)
      throw ArgumentError("slots: expected slots in 0.." + std::to_string(count - 1) + ", got " +
                          std::to_string(slots.data()[i]));
  py::gil_scoped_release release;
  return graph::retire(*store, slots.data(), slots.size(), now);
}

void set_vector(const StorePtr& store, int64_t slot, const Array<float>& vector, uint64_t now) {
  require_writable(*store);
  require_living(*store, "slot", &slot, 1);
  require_length("vector", store->layout().dim(), vector.size());
  require_finite("vector", vector.data(), vector.size());
  graph::set_vector(*store, slot, vector.data(), now);
}

void use(const StorePtr& store, const Array<int64_t>& members, const Array<float>& energies, float gain) {
  require_writable(*store);
  require_length("energies", members.size(), energies.size());
  py::gil_scoped_release release;
  graph::use(*store, members.data(), energies.data(), members.size(), 1, gain);
}

void follow(const StorePtr& store, const Array<int64_t>& previous, const Array<int64_t>& current,
            float initial, float rate, float yield) {
  require_writable(*store);
  require_length("current", previous.size(), current.size());
  py::gil_scoped_release release;
  graph::follow(*store, previous.data(), current.data(), previous.size(), {initial, rate, yield});
}

void coactivate(const StorePtr& store, const Array<int64_t>& members, float rate) {
  require_writable(*store);
  if (members.ndim() != 2) throw ArgumentError("members: expected shape [rows, width]");
  py::gil_scoped_release release;
  graph::coactivate(*store, members.data(), members.shape(0), members.shape(1), rate);
}

py::tuple sweep(const StorePtr& store, float confidence_threshold, float fade) {
  require_writable(*store);
  graph::SweepReport report;
  {
    py::gil_scoped_release release;
    report = graph::sweep(*store, {confidence_threshold, fade});
  }
  return py::make_tuple(report.edges_removed, report.slots_freed);
}

py::tuple bury(const StorePtr& store) {
  require_writable(*store);
  graph::SweepReport report;
  {
    py::gil_scoped_release release;
    report = graph::bury(*store);
  }
  return py::make_tuple(report.edges_removed, report.slots_freed);
}

int64_t merge(const StorePtr& store, const Array<int64_t>& kept, const Array<int64_t>& dropped,
              uint64_t now) {
  require_writable(*store);
  const int64_t n = kept.size();
  require_length("dropped", n, dropped.size());
  require_living(*store, "kept", kept.data(), n);
  require_living(*store, "dropped", dropped.data(), n);
  std::vector<std::pair<int32_t, int32_t>> pairs;
  std::unordered_set<int64_t> seen;
  for (int64_t i = 0; i < n; ++i) {
    if (!seen.insert(kept.data()[i]).second || !seen.insert(dropped.data()[i]).second)
      throw ArgumentError("merge: expected pairs of different concepts, each in one pair at most");
    pairs.emplace_back(static_cast<int32_t>(kept.data()[i]), static_cast<int32_t>(dropped.data()[i]));
  }
  py::gil_scoped_release release;
  graph::merge(*store, pairs, now);
  return n;
}

int64_t merge_duplicates(const StorePtr& store, float similarity, uint64_t now, int threads,
                         const std::optional<Array<double>>& common) {
  require_writable(*store);
  if (common) require_length("common", store->layout().dim(), common->size());
  const double* direction = common ? common->data() : nullptr;
  py::gil_scoped_release release;
  const auto pairs = graph::find_duplicates(*store, similarity, threads, direction);
  graph::merge(*store, pairs, now);
  return static_cast<int64_t>(pairs.size());
}

py::array_t<float> inverse_norms_without(const Array<double>& common, const Array<float>& rows) {
  if (rows.ndim() != 2) throw ArgumentError("rows: expected a matrix");
  require_length("common", rows.shape(1), common.size());
  py::array_t<float> inverse(rows.shape(0));
  const double* direction = common.data();
  const float* first = rows.data();
  float* out = inverse.mutable_data();
  {
    py::gil_scoped_release release;
    graph::inverse_norms_without(direction, first, rows.shape(0), rows.shape(1), out);
  }
  return inverse;
}

int64_t split(const StorePtr& store, int64_t slot, float initial_confidence, uint64_t now) {
  require_writable(*store);
  require_living(*store, "slot", &slot, 1);
  py::gil_scoped_release release;
  return graph::split(*store, slot, initial_confidence, now);
}

py::array_t<int64_t> with_orphans(const StorePtr& store, const Array<int64_t>& slots) {
  require_living(*store, "slots", slots.data(), slots.size());
  std::vector<int64_t> found;
  {
    py::gil_scoped_release release;
    found = graph::with_orphans(*store, slots.data(), slots.size());
  }
  return py::array_t<int64_t>(static_cast<py::ssize_t>(found.size()), found.data());
}

py::array_t<bool> share_abstraction(const StorePtr& store, const Array<int64_t>& pairs) {
  if (pairs.ndim() != 2 || pairs.shape(1) != 2) throw ArgumentError("pairs: expected shape [n, 2]");
  require_living(*store, "pairs", pairs.data(), pairs.size());
  const std::vector<uint8_t> share = graph::share_abstraction(*store, pairs.data(), pairs.shape(0));
  return py::array_t<bool>(static_cast<py::ssize_t>(share.size()),
                           reinterpret_cast<const bool*>(share.data()));
}

py::array_t<int64_t> find_crowded(const StorePtr& store, int64_t degree) {
  const std::vector<int64_t> slots = graph::find_crowded(*store, degree);
  return py::array_t<int64_t>(static_cast<py::ssize_t>(slots.size()), slots.data());
}

// A result in the shape of `slots`, made by value(slot, i); slots are as given, negative ones stand for none.
template <typename Value>
py::array_t<int64_t> for_slots(const StorePtr& store, const Array<int64_t>& slots, Value value) {
  if (store->closed()) throw StorageError("The store " + store->directory() + " is closed");
  const int64_t* slot = slots.data();
  py::array_t<int64_t> made(std::vector<py::ssize_t>(slots.shape(), slots.shape() + slots.ndim()));
  int64_t* out = made.mutable_data();
  for (int64_t i = 0; i < slots.size(); ++i) out[i] = value(slot[i], i);
  return made;
}

int64_t slot_count(const Store& store) { return static_cast<int64_t>(store.counters().node_count); }

int64_t identity(Store& store, int64_t slot) {
  return static_cast<int64_t>(*store.at<uint64_t>(storage::NodeColumn::kId, slot));
}

py::array_t<int64_t> identities(const StorePtr& store, const Array<int64_t>& slots) {
  return for_slots(store, slots, [&, count = slot_count(*store)](int64_t slot, int64_t) {
    if (slot >= count)
      throw ArgumentError("slots: expected slots below " + std::to_string(count) + ", got " +
                          std::to_string(slot));
    return slot < 0 ? 0 : identity(*store, slot);
  });
}

py::array_t<int64_t> still(const StorePtr& store, const Array<int64_t>& slots, const Array<int64_t>& ids) {
  require_length("ids", slots.size(), ids.size());
  const int64_t* id = ids.data();
  // A slot that was there may be no more: another memory on the store restored a smaller one.
  return for_slots(store, slots, [&, count = slot_count(*store)](int64_t slot, int64_t i) {
    const bool there = slot >= 0 && slot < count && graph::is_active(*store, slot);
    return there && identity(*store, slot) == id[i] ? slot : -1;
  });
}

}  // namespace

void bind_graph(py::module_& module) {
  using namespace py::literals;
  module.def("bear", &bear, "store"_a, "vectors"_a, "now"_a, "relevance"_a = 1.0f, "stability"_a = 0.5f,
             "log"_a = true, "ids"_a = py::none(),
             "Bears a concept for each row of vectors [n, D]; returns their slots i64 [n].");
  module.def("put_edges", &put_edges, "store"_a, "sources"_a, "targets"_a, "weights"_a, "confidences"_a,
             "kind"_a = 0, "up"_a = false,
             "Makes or sets edges between living slots; returns how many are new.");
  module.def("retire", &retire, "store"_a, "slots"_a, "now"_a,
             "Makes concepts inactive and releases their edges; returns how many died.");
  module.def("set_vector", &set_vector, "store"_a, "slot"_a, "vector"_a, "now"_a,
             "Replaces the vector [D] of a living concept.");
  module.def("use", &use, "store"_a, "members"_a, "energies"_a, "gain"_a,
             "Counts the use of context members (-1: none).");
  module.def("follow", &follow, "store"_a, "previous"_a, "current"_a, "initial"_a, "rate"_a, "yield_"_a,
             "Learns which concept followed which (-1: no event).");
  module.def("coactivate", &coactivate, "store"_a, "members"_a, "rate"_a,
             "Strengthens edges among concepts that were primary together, members [rows, width].");
  module.def("sweep", &sweep, "store"_a, "confidence_threshold"_a, "fade"_a,
             "Removes weak edges and those into the dead, frees dead slots; returns (edges, slots).");
  module.def("bury", &bury, "store"_a,
             "Removes the edges into the dead, frees dead slots; returns (edges, slots).");
  module.def("merge", &merge, "store"_a, "kept"_a, "dropped"_a, "now"_a,
             "Merges each dropped concept into its kept one; returns the number of pairs.");
  module.def(
      "merge_duplicates", &merge_duplicates, "store"_a, "similarity"_a, "now"_a, "threads"_a = 1,
      "common"_a = py::none(),
      "Merges linked concepts with cosine >= similarity and like neighbourhoods; returns how many pairs.");
  module.def(
      "inverse_norms_without", &inverse_norms_without, "common"_a, "rows"_a,
      "1 / length of each row [n, D] without its part along `common` [D], f32 [n]; 0 where none is left.");
  module.def("split", &split, "store"_a, "slot"_a, "initial_confidence"_a, "now"_a,
             "Splits a concept by 2-means over its neighbours; returns the newborn's slot or -1.");
  module.def("with_orphans", &with_orphans, "store"_a, "slots"_a,
             "Slots and the abstract concepts all of whose parents are among what goes, i64 [m], sorted.");
  module.def("share_abstraction", &share_abstraction, "store"_a, "pairs"_a,
             "Which pairs [n, 2] have an abstract concept in common or between them, bool [n].");
  module.def("find_crowded", &find_crowded, "store"_a, "degree"_a,
             "Living concepts with more than `degree` edges, slots i64 [n].");
  module.def("identities", &identities, "store"_a, "slots"_a,
             "The identities of slots, i64 of the same shape with the bits of u64; 0 for a negative slot.");
  module.def(
      "still", &still, "store"_a, "slots"_a, "ids"_a,
      "Slots that hold the living concept of that identity, i64 of the same shape; -1 for the others.");
  module.def(
      "check", [](const StorePtr& store) { return graph::check(*store); }, "store"_a,
      "Findings about broken invariants, one line each; none when the graph is sound.");
}

}  // namespace aesg::bindings
