// follow_ as torch sees it: checks, room, registration, and the plain loop over the events.
#include <algorithm>
#include <unordered_set>
#include <utility>
#include <vector>

#include "csrc/ops/device.h"
#include "csrc/ops/edge_args.h"
#include "csrc/ops/follow_math.h"

namespace aesg {
namespace {

struct Arguments {
  Tensor previous, current;  // contiguous
  Follow job;
};

// All checks of shapes and numbers, before any work, on every device.
Arguments check(const EdgeTensors& given, const Tensor& active, const Tensor& counters,
                const Tensor& previous, const Tensor& current, double initial, double rate, double yield) {
  const Edges edges = edges_of(given);
  expect_same_device(active, "active", given.first_block, "first_block");
  const auto alive = column<const uint8_t>(active, "active", 0);
  expect(alive.rows == edges.slots(), kMemoryError, "active: expected ", edges.slots(),
         " rows as in first_block, got ", shape_of{active});
  int64_t* numbers = counters_of(counters, given.first_block, "first_block");
  expect_dense<int64_t>(previous, "previous", 1, "[n]");
  expect_dense<int64_t>(current, "current", 1, "[n]");
  expect_same_device(previous, "previous", given.first_block, "first_block");
  expect_same_device(current, "current", given.first_block, "first_block");
  expect(current.size(0) == previous.size(0), kMemoryError, "current: expected the shape of previous, ",
         shape_of{previous}, ", got ", shape_of{current});
  expect(previous.size(0) <= kMostFollowed, kMemoryError, "previous: expected at most ", kMostFollowed,
         " events, got ", previous.size(0));
  const auto share = [](double value, const char* name) {
    expect(value >= 0 && value <= 1, kMemoryError, name, ": expected 0..1, got ", value);
    return static_cast<float>(value);
  };
  Arguments made{dense(previous), dense(current), {}};
  made.job = {edges,
              alive,
              numbers,
              static_cast<const int64_t*>(made.previous.data_ptr()),
              static_cast<const int64_t*>(made.current.data_ptr()),
              previous.size(0),
              {share(initial, "initial"), share(rate, "rate"), share(yield, "yield_")}};
  return made;
}

// Blocks that can still be handed out, counted up to `most`. O(most).
int64_t room_of(const Follow& job, int64_t most) {
  const Edges& edges = job.edges;
  const int64_t used = job.counters[kBlockCount];
  int64_t room = used < 0 ? 0 : std::max<int64_t>(edges.blocks() - used, 0);
  std::unordered_set<int64_t> counted;  // a list that comes back to a block ends there
  for (int64_t block = job.counters[kFreeBlock];
       room < most && is_free_block(edges, used, block) && counted.insert(block).second;
       block = edges.next_block[block])
    ++room;
  return std::min(room, most);
}

// Blocks that the events will take. O(n (log n + degree)).
int64_t blocks_wanted(const Follow& job) {
  std::vector<std::pair<int64_t, int64_t>> fresh;
  for (int64_t i = 0; i < job.count; ++i)
    if (job.is_event(i) && !find_edge(job.edges, job.previous[i], job.current[i], EdgeKind::kSuccession))
      fresh.emplace_back(job.previous[i], job.current[i]);
  std::sort(fresh.begin(), fresh.end());
  fresh.erase(std::unique(fresh.begin(), fresh.end()), fresh.end());
  int64_t wanted = 0, rank = 0;
  for (size_t i = 0; i < fresh.size(); ++i) {
    const int64_t source = fresh[i].first;
    rank = i > 0 && fresh[i - 1].first == source ? rank + 1 : 0;
    wanted += takes_block(rank, free_places(job.edges, source));
  }
  return wanted;
}

// One event as it comes, as the store does it. Where no block is left the new edge is not made.
// REQUIRES: job.is_event(i).
void follow_one(const Follow& job, int64_t i) {
  const Edges& edges = job.edges;
  const int64_t p = job.previous[i], c = job.current[i];
  const EdgePlace taken = find_edge(edges, p, c, EdgeKind::kSuccession);
  const float kept = job.kept(static_cast<bool>(taken));
  for_each_edge(edges, p, [&](int32_t block, int index) {
    if (edges.kind(block, index) != EdgeKind::kSuccession || edges.targets.at(block)[index] == c) return true;
    set_edge(edges, {block, index}, edges.weights.at(block)[index],
             edges.confidences.at(block)[index] * kept);
    return true;
  });
  if (taken) {
    strengthen(edges, taken, job.rules.rate);
    return;
  }
  int32_t fresh = -1;
  if (free_places(edges, p) == 0) hand_out_blocks(edges, job.counters, 1, &fresh);
  if (append_edge(edges, p, static_cast<int32_t>(c), EdgeKind::kSuccession, 1.0f, job.rules.initial, fresh))
    job.counters[kEdgeCount] += 1;
}

void follow_cpu(const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                const Tensor& sources, const Tensor& active, const Tensor& counters, const Tensor& previous,
                const Tensor& current, const std::optional<Tensor>&, double initial, double rate,
                double yield) {
  const Arguments arguments = check(
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      active, counters, previous, current, initial, rate, yield);
  const Follow& job = arguments.job;
  // No event takes more than one: mostly that is known to fit without looking closer.
  if (room_of(job, job.count) < job.count) {
    const int64_t wanted = blocks_wanted(job), room = room_of(job, wanted);
    expect(room == wanted, kMemoryError, "edges: expected room for ", wanted, " more blocks, got ", room);
  }
  for (int64_t i = 0; i < job.count; ++i)
    if (job.is_event(i)) follow_one(job, i);
}

#if defined(AESG_WITH_CUDA)
void follow_cuda(const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                 const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                 const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                 const Tensor& sources, const Tensor& active, const Tensor& counters, const Tensor& previous,
                 const Tensor& current, const std::optional<Tensor>& order, double initial, double rate,
                 double yield) {
  const Arguments arguments = check(
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      active, counters, previous, current, initial, rate, yield);
  expect(order.has_value(), kMemoryError, "order: expected the stable order of previous, got none");
  expect_dense<int64_t>(*order, "order", 1, "[n]");
  expect_same_device(*order, "order", previous, "previous");
  expect(order->size(0) == previous.size(0) && order->is_contiguous(), kMemoryError,
         "order: expected the shape of previous, ", shape_of{previous}, ", contiguous, got ",
         shape_of{*order});
  const OnDevice device(first_block);
  const Tensor workspace = make_workspace(first_block, gpu::follow_workspace(arguments.job));
  expect_launched(gpu::follow(arguments.job, static_cast<const int64_t*>(order->data_ptr()),
                              workspace.data_ptr(), device.stream),
                  "follow_");
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("follow_", TORCH_BOX(&aesg::follow_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("follow_", TORCH_BOX(&aesg::follow_cpu)); }
