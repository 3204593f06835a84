// aesg._core: the store for Python. Thin: shapes, dtypes and friendly names are aesg/storage's business.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "csrc/base/crc32c.h"
#include "csrc/base/error.h"
#include "csrc/bindings/answers_binding.h"
#include "csrc/bindings/graph_binding.h"
#include "csrc/graph/population.h"
#include "csrc/storage/store.h"

namespace py = pybind11;
namespace st = aesg::storage;

namespace {

using StorePtr = std::shared_ptr<st::Store>;

// A writable view of the store's bytes. It keeps the store, and so its memory, alive.
py::array view(const StorePtr& store, uint8_t* data, int64_t bytes) {
  py::capsule owner(new StorePtr(store), [](void* p) { delete static_cast<StorePtr*>(p); });
  return py::array_t<uint8_t>({bytes}, {int64_t{1}}, data, owner);
}

py::array_t<uint64_t> copied(const std::vector<uint64_t>& numbers) {
  return py::array_t<uint64_t>(static_cast<py::ssize_t>(numbers.size()), numbers.data());
}

py::bytes to_bytes(const std::vector<uint8_t>& v) {
  return py::bytes(reinterpret_cast<const char*>(v.data()), v.size());
}

st::NodeColumn column_of(int index) {
  if (index < 0 || index >= st::kNodeColumnCount) {
    throw aesg::ArgumentError("column: expected 0.." + std::to_string(st::kNodeColumnCount - 1) + ", got " +
                              std::to_string(index));
  }
  return static_cast<st::NodeColumn>(index);
}

void check_rows(int64_t first, int64_t last, uint64_t count, const char* what) {
  if (first < 0 || first > last || last > static_cast<int64_t>(count)) {
    throw aesg::ArgumentError(std::string(what) + ": expected rows inside 0.." + std::to_string(count) +
                              ", got " + std::to_string(first) + ".." + std::to_string(last));
  }
}

void check_row(int64_t row, uint64_t count, const char* what) {
  if (row < 0 || row >= static_cast<int64_t>(count)) {
    throw aesg::ArgumentError(std::string(what) + ": expected a row in 0.." +
                              std::to_string(static_cast<int64_t>(count) - 1) + ", got " +
                              std::to_string(row));
  }
}

using Rows = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// New values of one field, one a row or one for all: `tail` numbers each. Checked, not yet written.
template <typename T>
struct Values {
  py::array_t<T, py::array::c_style | py::array::forcecast> array;
  int64_t step = 0;

  Values(const char* name, const py::handle& given, int64_t rows, int64_t tail) {
    py::array any = py::array::ensure(given);
    const char kind = any ? any.dtype().kind() : 'O';
    const bool number = kind == 'i' || kind == 'u' || (kind == 'f' && std::is_floating_point_v<T>);
    if (!number || (any.size() != tail && any.size() != rows * tail)) {
      throw aesg::ArgumentError(std::string(name) + ": expected " + std::to_string(tail) + " or " +
                                std::to_string(rows * tail) + " numbers, got " +
                                py::repr(given).cast<std::string>().substr(0, 80));
    }
    array = any;
    step = any.size() == tail ? 0 : tail;
  }
  const T* row(int64_t i) const { return array.data() + i * step; }
};

// update(store, slots, now, vector=..., relevance=..., ...): several fields of several rows in one call.
void update(st::Store& s, const Rows& slots, uint64_t now, const py::kwargs& fields) {
  const int64_t n = slots.size(), dim = s.layout().dim();
  for (int64_t i = 0; i < n; ++i) check_row(slots.data()[i], s.counters().node_count, "update");
  std::vector<std::function<void()>> writes;  // all checks first
  for (const auto& [key, given] : fields) {
    const auto name = key.cast<std::string>();
    if (name == "vector") {
      Values<float> values("vector", given, n, dim);
      for (int64_t i = 0; i < values.array.size(); ++i) {
        if (!std::isfinite(values.array.data()[i]))
          throw aesg::ArgumentError("vector: expected finite numbers, got NaN or infinity");
      }
      writes.emplace_back([&s, &slots, n, now, values] {
        for (int64_t i = 0; i < n; ++i) aesg::graph::set_vector(s, slots.data()[i], values.row(i), now);
      });
    } else if (name == "relevance" || name == "stability") {
      const auto column = name == "relevance" ? st::NodeColumn::kRelevance : st::NodeColumn::kStability;
      Values<float> values(name.c_str(), given, n, 1);
      for (int64_t i = 0; i < values.array.size(); ++i) {
        if (!std::isfinite(values.array.data()[i]))
          throw aesg::ArgumentError(name + ": expected finite numbers, got NaN or infinity");
      }
      writes.emplace_back([&s, &slots, n, column, values] {
        for (int64_t i = 0; i < n; ++i) {
          *s.at<float>(column, slots.data()[i]) = *values.row(i);
          s.mark(column, slots.data()[i]);
        }
      });
    } else if (name == "use_frequency" || name == "age" || name == "region_id") {
      const auto column = name == "age"             ? st::NodeColumn::kAge
                          : name == "use_frequency" ? st::NodeColumn::kUseFrequency
                                                    : st::NodeColumn::kRegionId;
      Values<int64_t> values(name.c_str(), given, n, 1);
      for (int64_t i = 0; i < values.array.size(); ++i) {
        if (values.array.data()[i] < 0 || values.array.data()[i] > UINT32_MAX)
          throw aesg::ArgumentError(name + ": expected 0..2**32-1, got " +
                                    std::to_string(values.array.data()[i]));
      }
      writes.emplace_back([&s, &slots, n, column, values] {
        for (int64_t i = 0; i < n; ++i) {
          *s.at<uint32_t>(column, slots.data()[i]) = static_cast<uint32_t>(*values.row(i));
          s.mark(column, slots.data()[i]);
        }
      });
    } else {
      throw aesg::ArgumentError(
          "update: expected vector, relevance, stability, use_frequency, age or region_id, got '" + name +
          "'");
    }
  }
  for (const auto& write : writes) write();
}

const char* name_of(st::DirectoryKind kind) {
  switch (kind) {
    case st::DirectoryKind::kMissing:
      return "missing";
    case st::DirectoryKind::kEmpty:
      return "empty";
    case st::DirectoryKind::kOurs:
      return "ours";
    case st::DirectoryKind::kVersion3:
      return "aesg-3.0.0";
    default:
      return "foreign";
  }
}

void bind_layout(py::module_& m) {
  m.attr("HEADER_BYTES") = st::kHeaderBytes;
  m.attr("GROUP_ROWS") = st::kGroupRows;
  m.attr("BLOCK_EDGES") = st::kBlockEdges;
  m.attr("EDGE_GROUP_BYTES") = st::kEdgeGroupBytes;
  m.attr("HOT_GROUP_BYTES") = st::kHotGroupBytes;
  m.attr("HOT_BLOCK_BYTES") = static_cast<int64_t>(sizeof(st::HotBlock));
  m.attr("COLD_BLOCK_BYTES") = static_cast<int64_t>(sizeof(st::ColdBlock));
  m.attr("EDGE_KIND_MASK") = st::kEdgeKindMask;
  m.attr("EDGE_USED_BIT") = st::kEdgeUsedBit;
  m.attr("NODE_COLUMNS") =
      py::make_tuple("vector", "id", "created_at", "modified_at", "inv_norm", "use_frequency", "relevance",
                     "age", "stability", "region_id", "first_block", "is_active", "reserved");
  m.def("group_bytes", [](int64_t dim) { return st::NodeLayout(dim).group_bytes(); }, py::arg("vector_dim"));
  m.def(
      "column_offset", [](int64_t dim, int column) { return st::NodeLayout(dim).offset(column_of(column)); },
      py::arg("vector_dim"), py::arg("column"));
}

void bind_counters(py::module_& m) {
  using C = st::Counters;
  py::class_<C>(m, "Counters", py::module_local())
      .def_readonly("generation", &C::generation)
      .def_readwrite("node_count", &C::node_count)
      .def_readwrite("active_count", &C::active_count)
      .def_readwrite("edge_count", &C::edge_count)
      .def_readwrite("block_count", &C::block_count)
      .def_readwrite("next_id", &C::next_id)
      .def_readonly("free_slot", &C::free_slot)
      .def_readonly("free_block", &C::free_block)
      .def_readonly("event_count", &C::event_count);
}

void bind_store(py::module_& m) {
  py::class_<st::Store, StorePtr>(m, "Store", py::module_local())
      .def_static(
          "open",
          [](const std::string& directory, int64_t vector_dim, bool read_only, int64_t fold_bytes,
             int64_t bulk_bytes) {
            st::OpenOptions options;
            options.directory = directory;
            options.vector_dim = vector_dim;
            options.access = read_only ? st::Access::kRead : st::Access::kWrite;
            if (fold_bytes) options.fold_bytes = fold_bytes;
            if (bulk_bytes) options.bulk_bytes = bulk_bytes;
            py::gil_scoped_release release;
            return st::Store::open(options);
          },
          py::arg("directory"), py::arg("vector_dim") = 0, py::kw_only(), py::arg("read_only") = false,
          py::arg("fold_bytes") = 0, py::arg("bulk_bytes") = 0)
      .def_property_readonly("directory", &st::Store::directory)
      .def_property_readonly("read_only", &st::Store::read_only)
      .def_property_readonly("closed", &st::Store::closed)
      .def_property_readonly("vector_dim", [](const st::Store& s) { return s.layout().dim(); })
      .def_property_readonly(
          "counters", [](st::Store& s) -> st::Counters& { return s.counters(); },
          py::return_value_policy::reference_internal)
      .def_property_readonly("node_count", [](const st::Store& s) { return s.counters().node_count; })
      .def_property_readonly("active_count", [](const st::Store& s) { return s.counters().active_count; })
      .def_property_readonly("edge_count", [](const st::Store& s) { return s.counters().edge_count; })
      .def_property_readonly("generation", [](const st::Store& s) { return s.counters().generation; })
      .def_property_readonly("event_count", [](const st::Store& s) { return s.counters().event_count; })
      .def_property_readonly("node_groups", &st::Store::node_groups)
      // u64 [groups marked so far]
      .def_property_readonly("vector_stamps", [](const st::Store& s) { return copied(s.vector_stamps()); })
      .def_property_readonly("group_stamps", [](const st::Store& s) { return copied(s.group_stamps()); })
      .def_property_readonly("learnt_stamps", [](const st::Store& s) { return copied(s.learnt_stamps()); })
      .def_property_readonly("block_stamps", [](const st::Store& s) { return copied(s.block_stamps()); })
      .def_property_readonly("cold_stamps", [](const st::Store& s) { return copied(s.cold_stamps()); })
      .def_property_readonly("changes", &st::Store::changes)
      .def_property_readonly("block_groups", &st::Store::block_groups)
      .def("node_view",
           [](const StorePtr& s) {
             return view(s, s->node_bytes(), s->node_groups() * s->layout().group_bytes());
           })
      .def(
          "edge_view",
          [](const StorePtr& s) { return view(s, s->edge_bytes(), s->block_groups() * st::kEdgeGroupBytes); })
      .def(
          "mark",
          [](st::Store& s, int column, const Rows& rows) {
            st::NodeColumn c = column_of(column);
            for (py::ssize_t i = 0; i < rows.size(); ++i)
              check_row(rows.data()[i], s.counters().node_count, "mark");
            for (py::ssize_t i = 0; i < rows.size(); ++i) s.mark(c, rows.data()[i]);
          },
          py::arg("column"), py::arg("slots"))
      .def(
          "mark_rows",
          [](st::Store& s, int column, int64_t first, int64_t last) {
            check_rows(first, last, s.counters().node_count, "mark_rows");
            s.mark_rows(column_of(column), first, last);
          },
          py::arg("column"), py::arg("first"), py::arg("last"))
      .def("update", &update, py::arg("slots"), py::arg("now"))
      .def(
          "mark_blocks",
          [](st::Store& s, const Rows& blocks, bool hot, bool cold) {
            for (py::ssize_t i = 0; i < blocks.size(); ++i) {
              check_row(blocks.data()[i], s.counters().block_count, "mark_blocks");
            }
            for (py::ssize_t i = 0; i < blocks.size(); ++i) {
              if (hot) s.mark_hot(blocks.data()[i]);
              if (cold) s.mark_cold(blocks.data()[i]);
            }
          },
          py::arg("blocks"), py::arg("hot") = true, py::arg("cold") = true)
      .def("take_vector_changes",
           [](st::Store& s) {
             const st::Store::VectorChanges changes = s.take_vector_changes();
             py::array_t<int64_t> slots(static_cast<py::ssize_t>(changes.slots.size()), changes.slots.data());
             return py::make_tuple(changes.all, slots);
           })
      .def("allocate_slot", &st::Store::allocate_slot)
      .def("free_slot", &st::Store::free_slot, py::arg("slot"))
      .def("allocate_block", &st::Store::allocate_block)
      .def("free_block", &st::Store::free_block, py::arg("block"))
      .def("reserve_nodes", &st::Store::reserve_nodes, py::arg("more"))
      .def(
          "append_event",
          [](st::Store& s, uint64_t timestamp, int type, uint64_t id1, uint64_t id2, float value) {
            if (type < 0 || type > 255) {
              throw aesg::ArgumentError("event type: expected 0..255, got " + std::to_string(type));
            }
            s.append_event(timestamp, static_cast<st::EventType>(type), id1, id2, value);
          },
          py::arg("timestamp"), py::arg("type"), py::arg("id1") = 0, py::arg("id2") = 0,
          py::arg("value") = 0.0F)
      .def(
          "events",
          [](const st::Store& s, uint64_t first, uint64_t n) { return to_bytes(s.events(first, n)); },
          py::arg("first"), py::arg("n"))
      .def("state", [](const st::Store& s) { return to_bytes(s.state()); })
      .def(
          "set_state",
          [](st::Store& s, const py::buffer& bytes) {
            py::buffer_info info = bytes.request();
            if (info.ndim != 1 || info.itemsize != 1)
              throw aesg::ArgumentError("state: expected plain bytes");
            const auto* p = static_cast<const uint8_t*>(info.ptr);
            s.set_state(std::vector<uint8_t>(p, p + info.size));
          },
          py::arg("bytes"))
      .def("copy_from", &st::Store::copy_from, py::arg("source"), py::call_guard<py::gil_scoped_release>())
      .def("snapshot", &st::Store::snapshot, py::arg("directory"), py::call_guard<py::gil_scoped_release>())
      .def("commit", &st::Store::commit, py::call_guard<py::gil_scoped_release>())
      .def("fold", &st::Store::fold, py::call_guard<py::gil_scoped_release>())
      .def("compact", &st::Store::compact, py::call_guard<py::gil_scoped_release>())
      .def("close", &st::Store::close, py::call_guard<py::gil_scoped_release>())
      .def("refresh", &st::Store::refresh, py::call_guard<py::gil_scoped_release>())
      .def("verify", &st::Store::verify, py::call_guard<py::gil_scoped_release>());
}

// aesg::StorageError and ArgumentError leave as the classes of aesg.exceptions, looked up when first needed.
void translate(std::exception_ptr error) {
  auto raise = [](const char* name, const char* message) {
    py::object type = py::module_::import("aesg.exceptions").attr(name);
    PyErr_SetString(type.ptr(), message);
  };
  try {
    if (error) std::rethrow_exception(error);
  } catch (const aesg::StorageError& e) {
    raise("AESGStorageError", e.what());
  } catch (const aesg::ArgumentError& e) {
    raise("AESGMemoryError", e.what());
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The store of aesg: mapped columns, journalled commits. Used through aesg.storage.";
  py::register_local_exception_translator(translate);
  bind_layout(m);
  bind_counters(m);
  bind_store(m);
  m.def(
      "inspect",
      [](const std::string& directory) {
        st::Inspection found = st::inspect(directory);
        py::dict d;
        d["kind"] = name_of(found.kind);
        d["vector_dim"] = found.vector_dim;
        d["node_count"] = found.counters.node_count;
        d["edge_count"] = found.counters.edge_count;
        d["generation"] = found.counters.generation;
        d["reason"] = found.reason;
        return d;
      },
      py::arg("directory"));
  m.def(
      "crc32c",
      [](const py::buffer& bytes, uint32_t crc) {
        py::buffer_info info = bytes.request();
        return aesg::crc32c(crc, info.ptr, static_cast<size_t>(info.size * info.itemsize));
      },
      py::arg("data"), py::arg("crc") = 0);
  aesg::bindings::bind_answers(m);
  aesg::bindings::bind_graph(m);
}
