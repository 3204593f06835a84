#include "csrc/tests/helpers.h"

#include <stdlib.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "csrc/tests/check.h"

namespace aesg::testing {

using namespace storage;  // NOLINT: a test

TempDirectory::TempDirectory() {
  const char* base = ::getenv("TMPDIR");
  std::string pattern = std::string(base && *base ? base : "/tmp") + "/aesg_test_XXXXXX";
  CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::shared_ptr<Store> open_store(const std::string& directory, int64_t dim, Access access) {
  OpenOptions options;
  options.directory = directory;
  options.vector_dim = dim;
  options.access = access;
  return Store::open(options);
}

int64_t add_concept(Store& store) {
  int64_t slot = store.allocate_slot();
  Counters& c = store.counters();
  uint64_t id = c.next_id++;
  float* v = store.at<float>(NodeColumn::kVector, slot);
  float norm = 0;
  for (int64_t d = 0; d < store.layout().dim(); ++d) {
    v[d] = std::sin(static_cast<float>(id * 7 + static_cast<uint64_t>(d)));
    norm += v[d] * v[d];
  }
  *store.at<uint64_t>(NodeColumn::kId, slot) = id;
  *store.at<uint64_t>(NodeColumn::kCreatedAt, slot) = 1700000000 + id;
  *store.at<uint64_t>(NodeColumn::kModifiedAt, slot) = 1700000000 + id;
  *store.at<float>(NodeColumn::kInvNorm, slot) = 1 / std::sqrt(norm);
  *store.at<float>(NodeColumn::kRelevance, slot) = 1;
  *store.at<float>(NodeColumn::kStability, slot) = 0.5F;
  *store.at<uint8_t>(NodeColumn::kIsActive, slot) = 1;
  ++c.active_count;
  store.append_event(1700000000 + id, EventType::kCreate, id, 0, 1);
  return slot;
}

void add_edge(Store& store, int64_t source, int32_t target, float weight) {
  int32_t block = store.allocate_block();
  HotBlock& hot = *store.hot(block);
  ColdBlock& cold = *store.cold(block);
  int32_t* head = store.at<int32_t>(NodeColumn::kFirstBlock, source);
  hot.target[0] = target;
  hot.strength[0] = weight;
  hot.count = 1;
  hot.next = *head;
  cold.weight[0] = weight;
  cold.confidence[0] = 1;
  cold.source = static_cast<int32_t>(source);
  *head = block;
  store.mark(NodeColumn::kFirstBlock, source);
  ++store.counters().edge_count;
}

void do_step(Store& store, uint64_t step) {
  Counters& c = store.counters();
  uint64_t random = step * 0x9E3779B97F4A7C15u;
  auto draw = [&](uint64_t limit) {
    random = (random ^ (random >> 29)) * 0xBF58476D1CE4E5B9u + 0x1234567;
    return (random >> 20) % limit;
  };
  uint64_t births = 1 + draw(6) + (step % 17 == 16 ? 1500 : 0);
  for (uint64_t i = 0; i < births; ++i) add_concept(store);
  for (uint64_t i = 0; i < 4; ++i) {
    auto slot = static_cast<int64_t>(draw(c.node_count)), other = static_cast<int64_t>(draw(c.node_count));
    if (!*store.at<uint8_t>(NodeColumn::kIsActive, slot)) continue;
    *store.at<float>(NodeColumn::kRelevance, slot) *= 0.75F;
    store.mark(NodeColumn::kRelevance, slot);
    if (*store.at<uint8_t>(NodeColumn::kIsActive, other))
      add_edge(store, slot, static_cast<int32_t>(other), 0.5F);
  }
  if (step % 3 == 2) {  // a concept without edges dies and its slot is freed (edges into it stay dangling)
    auto slot = static_cast<int64_t>(draw(c.node_count));
    if (*store.at<uint8_t>(NodeColumn::kIsActive, slot) &&
        *store.at<int32_t>(NodeColumn::kFirstBlock, slot) == -1) {
      store.append_event(1700000000 + step, EventType::kPrune, *store.at<uint64_t>(NodeColumn::kId, slot), 0,
                         0);
      --c.active_count;
      *store.at<uint8_t>(NodeColumn::kIsActive, slot) = 0;
      store.free_slot(slot);
    }
  }
  if (step % 2 == 0) {
    std::vector<uint8_t> state(200 + draw(400));
    for (size_t i = 0; i < state.size(); ++i) state[i] = static_cast<uint8_t>(i < 150 ? i : i + step);
    store.set_state(std::move(state));
  }
}

uint64_t fingerprint(Store& store) {
  uint64_t h = 1469598103934665603u;
  auto add = [&](const void* data, size_t n) {
    const auto* p = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i < n; ++i) h = (h ^ p[i]) * 1099511628211u;
  };
  Counters c = store.counters();
  c.generation = 0;
  add(&c, sizeof c);
  for (int64_t slot = 0; slot < static_cast<int64_t>(c.node_count); ++slot) {
    for (int column = 0; column < kNodeColumnCount; ++column) {
      auto name = static_cast<NodeColumn>(column);
      add(store.at<uint8_t>(name, slot), static_cast<size_t>(store.layout().row_bytes(name)));
    }
  }
  for (int64_t block = 0; block < static_cast<int64_t>(c.block_count); ++block) {
    add(store.hot(block), sizeof(HotBlock));
    add(store.cold(block), sizeof(ColdBlock));
  }
  std::vector<uint8_t> events = store.events(0, c.event_count);
  add(events.data(), events.size());
  add(store.state().data(), store.state().size());
  return h;
}

std::vector<uint8_t> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_file(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  CHECK(out.good());
}

void copy_directory(const std::string& from, const std::string& to) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

}  // namespace aesg::testing
