// What happens to the answers of one call: members of several graphs merged, their vectors gathered, the
// strongest kept for each stream. A member is origin * 2^32 + slot, -1 for none: aesg/packs/ranking.py.
// Small loops over a few numbers a query, for each of which torch would need several operations.
#include "csrc/bindings/answers_binding.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"

namespace py = pybind11;

namespace aesg::bindings {
namespace {

using storage::NodeColumn;
using storage::Store;

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;
template <typename T>
using Place = py::array_t<T, py::array::c_style>;  // written to: never a copy
using StorePtr = std::shared_ptr<Store>;

constexpr int kOriginShift = 32;

void require_shape(const char* name, const py::array& given, std::initializer_list<int64_t> sizes) {
  bool fits = given.ndim() == static_cast<py::ssize_t>(sizes.size());
  for (size_t i = 0; fits && i < sizes.size(); ++i)
    fits = given.shape(static_cast<py::ssize_t>(i)) == sizes.begin()[i];
  if (fits) return;
  std::string wanted;
  for (const int64_t size : sizes) wanted += (wanted.empty() ? "" : ", ") + std::to_string(size);
  throw ArgumentError(std::string(name) + ": expected shape [" + wanted + "]");
}

void require_open(const Store& store) {
  if (store.closed()) throw StorageError("The store " + store.directory() + " is closed");
}

int64_t require_inside(int64_t slot, int64_t count) {
  if (slot < count) return slot;
  throw ArgumentError("members: expected slots below " + std::to_string(count) + ", got " +
                      std::to_string(slot));
}

// The width strongest of one row of every answer: where they stand in all answers side by side, energies and
// members. Answers are sorted, so the strongest left of one is its next; of equals the earlier answer's.
struct Merge {
  std::vector<const float*> energies;
  std::vector<const int64_t*> slots;
  std::vector<float> shares;
  int64_t width;
  std::vector<int64_t> next = {};  // of every answer

  void row(int64_t q, int64_t* order, float* merged, int64_t* members) {
    next.assign(energies.size(), 0);
    for (int64_t i = 0; i < width; ++i) {
      size_t best = energies.size();
      float most = 0.0f;
      for (size_t a = 0; a < energies.size(); ++a) {
        if (next[a] == width) continue;
        const float energy = energies[a][q * width + next[a]] * shares[a];
        if (best != energies.size() && !(energy > most)) continue;
        best = a;
        most = energy;
      }
      const int64_t at = next[best]++, slot = slots[best][q * width + at];
      order[i] = static_cast<int64_t>(best) * width + at;
      merged[i] = most;
      members[i] = most > 0 && slot >= 0 ? (static_cast<int64_t>(best) << kOriginShift) + slot : -1;
    }
  }
};

py::tuple merge_answers(const std::vector<Array<float>>& energies, const std::vector<Array<int64_t>>& slots,
                        const std::vector<float>& shares) {
  if (energies.empty() || energies.size() != slots.size() || energies.size() != shares.size() ||
      energies[0].ndim() != 2)
    throw ArgumentError("answers: expected energies [Q, K], slots [Q, K] and a share of each, at least one");
  const int64_t rows = energies[0].shape(0), width = energies[0].shape(1);
  Merge merge{{}, {}, shares, width};
  for (size_t a = 0; a < energies.size(); ++a) {
    require_shape("energies", energies[a], {rows, width});
    require_shape("slots", slots[a], {rows, width});
    merge.energies.push_back(energies[a].data());
    merge.slots.push_back(slots[a].data());
  }
  py::array_t<int64_t> order({rows, width}), members({rows, width});
  py::array_t<float> merged({rows, width});
  for (int64_t q = 0; q < rows; ++q)
    merge.row(q, order.mutable_data() + q * width, merged.mutable_data() + q * width,
              members.mutable_data() + q * width);
  return py::make_tuple(order, merged, members);
}

// Rows of one origin's members to their places in `vectors`, row(slot) for each; of origin 0 also zeros where
// there is none.
template <typename Row>
void gather(const Array<int64_t>& members, int64_t origin, int64_t count, int64_t dim, Place<float>& vectors,
            const Row& row) {
  if (members.ndim() != 2) throw ArgumentError("members: expected shape [Q, K]");
  require_shape("vectors", vectors, {members.shape(0), members.shape(1), dim});
  const int64_t n = members.size(), first = origin << kOriginShift;
  const int64_t* member = members.data();
  for (int64_t i = 0; i < n; ++i)
    if (member[i] >> kOriginShift == origin) require_inside(member[i] - first, count);
  float* to = vectors.mutable_data();
  const size_t bytes = static_cast<size_t>(dim) * sizeof(float);
  for (int64_t i = 0; i < n; ++i) {
    if (member[i] >> kOriginShift == origin) {
      std::memcpy(to + i * dim, row(member[i] - first), bytes);
    } else if (origin == 0 && member[i] < 0) {
      std::memset(to + i * dim, 0, bytes);
    }
  }
}

void gather_own(const StorePtr& store, const Array<int64_t>& members, Place<float> vectors) {
  require_open(*store);
  gather(members, 0, static_cast<int64_t>(store->counters().node_count), store->layout().dim(), vectors,
         [&](int64_t slot) { return store->at<float>(NodeColumn::kVector, slot); });
}

void gather_of(const Place<float>& rows, const Array<int64_t>& members, int64_t origin,
               Place<float> vectors) {
  if (rows.ndim() != 2) throw ArgumentError("rows: expected shape [N, D]");
  if (origin < 1) throw ArgumentError("origin: expected at least 1, got " + std::to_string(origin));
  const float* from = rows.data();
  const int64_t dim = rows.shape(1);
  gather(members, origin, rows.shape(0), dim, vectors, [&](int64_t slot) { return from + slot * dim; });
}

// Row b of the streams from `first` on: the strongest members of answer row (b + 1) * steps - 1.
void keep_primary(const StorePtr& store, const Array<int64_t>& members, const Array<float>& energies,
                  int64_t steps, int64_t first, Place<int64_t> slots, Place<int64_t> ids,
                  Place<float> kept_energies) {
  if (store) require_open(*store);
  if (members.ndim() != 2 || slots.ndim() != 2)
    throw ArgumentError("members, slots: expected shapes [Q, K] and [streams, P]");
  const int64_t rows = members.shape(0), width = members.shape(1), streams = slots.shape(0),
                primary = slots.shape(1);
  require_shape("energies", energies, {rows, width});
  require_shape("ids", ids, {streams, primary});
  require_shape("kept_energies", kept_energies, {streams, primary});
  if (steps < 1 || rows % steps != 0 || first < 0 || rows / steps > streams - first)
    throw ArgumentError("members: expected rows of " + std::to_string(steps) + " steps for at most " +
                        std::to_string(streams - first) + " streams, got " + std::to_string(rows));
  const int64_t count = store ? static_cast<int64_t>(store->counters().node_count) : INT64_MAX;
  for (int64_t i = 0; i < rows * width; ++i) require_inside(members.data()[i], count);
  for (int64_t b = 0; b < rows / steps; ++b) {
    const int64_t from = ((b + 1) * steps - 1) * width, to = (first + b) * primary;
    for (int64_t p = 0; p < primary; ++p) {
      const int64_t slot = p < width ? members.data()[from + p] : -1;
      slots.mutable_data()[to + p] = slot;
      kept_energies.mutable_data()[to + p] = p < width ? energies.data()[from + p] : 0.0f;
      // In a pack, where nothing changes, the slot itself tells a concept from all others.
      ids.mutable_data()[to + p] = !store ? slot
                                   : slot < 0
                                       ? 0
                                       : static_cast<int64_t>(*store->at<uint64_t>(NodeColumn::kId, slot));
    }
  }
}

}  // namespace

void bind_answers(py::module_& module) {
  using namespace py::literals;
  module.def("merge_answers", &merge_answers, "energies"_a, "slots"_a, "shares"_a,
             "The K strongest of several answers [Q, K]: (order, energies, members), order counting the "
             "answers side by side.");
  module.def("gather_own", &gather_own, py::arg("store").none(false), "members"_a,
             py::arg("vectors").noconvert(),
             "Copies the memory's own members [Q, K] to vectors [Q, K, D]; zeros where there is none.");
  module.def("gather_of", &gather_of, py::arg("rows").noconvert(), "members"_a, "origin"_a,
             py::arg("vectors").noconvert(),
             "The same for the members of another origin, out of rows [N, D].");
  module.def("keep_primary", &keep_primary, "store"_a.none(true), "members"_a, "energies"_a, "steps"_a,
             "first"_a, py::arg("slots").noconvert(), py::arg("ids").noconvert(),
             py::arg("kept_energies").noconvert(),
             "Keeps the strongest members [Q, K] of each stream's last step, with identities and energies.");
}

}  // namespace aesg::bindings
