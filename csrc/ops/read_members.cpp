// read_members as torch sees it: checks, threads, registration. The kernel is csrc/ops/cpu/read_members.cpp.
#include "csrc/ops/cpu/read_members.h"

#include <tuple>
#include <utility>
#include <vector>

#include "csrc/ops/device.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

constexpr int64_t kPositionsPerTask = 32;  // a position takes about a microsecond

struct Arguments {
  Tensor sought, queries, weight, vectors, energies;  // contiguous
  int64_t batch;
  cpu::Reading reading;

  cpu::ReadingIn at(int64_t b) const {
    const auto row = [b](const Tensor& t, int64_t size) {
      return static_cast<const float*>(t.data_ptr()) + b * size;
    };
    const int64_t h = reading.heads, k = reading.members, d = reading.dim;
    return {row(sought, h * d), row(queries, d), row(vectors, k * d), row(energies, k)};
  }
};

Arguments check(const Tensor& sought, const Tensor& queries, const Tensor& weight, const Tensor& vectors,
                const Tensor& energies) {
  expect_dense<float>(sought, "sought", 3, "[B, H, D]");
  expect_dense<float>(queries, "queries", 2, "[B, D]");
  expect_dense<float>(weight, "likeness_weight", 1, "[H]");
  expect_dense<float>(vectors, "vectors", 3, "[B, K, D]");
  expect_dense<float>(energies, "energies", 2, "[B, K]");
  const int64_t batch = sought.size(0), heads = sought.size(1), dim = sought.size(2), k = energies.size(1);
  expect(queries.size(0) == batch && queries.size(1) == dim, kMemoryError,
         "queries: expected B and D as in sought, ", shape_of{sought}, ", got ", shape_of{queries});
  expect(weight.size(0) == heads, kMemoryError, "likeness_weight: expected H as in sought, ",
         shape_of{sought}, ", got ", shape_of{weight});
  expect(vectors.size(0) == batch && vectors.size(1) == k && vectors.size(2) == dim, kMemoryError,
         "vectors: expected [", batch, ", ", k, ", ", dim, "], got ", shape_of{vectors});
  expect(energies.size(0) == batch, kMemoryError, "energies: expected B as in sought, ", shape_of{sought},
         ", got ", shape_of{energies});
  Arguments made{dense(sought), dense(queries), dense(weight), dense(vectors), dense(energies), batch, {}};
  made.reading = {heads, k, dim, static_cast<const float*>(made.weight.data_ptr())};
  return made;
}

void check_gradients(const Arguments& arguments, const Tensor& grad_found, const Tensor& grad_mean,
                     const Tensor& shares) {
  const int64_t batch = arguments.batch, h = arguments.reading.heads, k = arguments.reading.members,
                d = arguments.reading.dim;
  const Tensor& sought = arguments.sought;
  const Tensor& queries = arguments.queries;
  expect_dense<float>(grad_found, "grad_found", 3, "[B, H, D]");
  expect_dense<float>(grad_mean, "grad_mean", 2, "[B, D]");
  expect_dense<float>(shares, "shares", 3, "[B, H, K]");
  expect(grad_found.size(0) == batch && grad_found.size(1) == h && grad_found.size(2) == d, kMemoryError,
         "grad_found: expected the shape of sought, ", shape_of{sought}, ", got ", shape_of{grad_found});
  expect(grad_mean.size(0) == batch && grad_mean.size(1) == d, kMemoryError,
         "grad_mean: expected the shape of queries, ", shape_of{queries}, ", got ", shape_of{grad_mean});
  expect(shares.size(0) == batch && shares.size(1) == h && shares.size(2) == k, kMemoryError,
         "shares: expected [", batch, ", ", h, ", ", k, "], got ", shape_of{shares});
}

// found [B, H, D], mean [B, D] and the shares [B, H, K] that the gradient needs.
std::tuple<Tensor, Tensor, Tensor> read_members_cpu(const Tensor& sought, const Tensor& queries,
                                                    const Tensor& likeness_weight, const Tensor& vectors,
                                                    const Tensor& energies) {
  const Arguments arguments = check(sought, queries, likeness_weight, vectors, energies);
  const cpu::Reading& reading = arguments.reading;
  const int64_t h = reading.heads, k = reading.members, d = reading.dim;
  Tensor found = make_tensor(sought, {arguments.batch, h, d}, ScalarType::Float);
  Tensor mean = make_tensor(sought, {arguments.batch, d}, ScalarType::Float);
  Tensor shares = make_tensor(sought, {arguments.batch, h, k}, ScalarType::Float);
  auto* to_found = static_cast<float*>(found.data_ptr());
  auto* to_mean = static_cast<float*>(mean.data_ptr());
  auto* to_shares = static_cast<float*>(shares.data_ptr());
  torch::stable::parallel_for(0, arguments.batch, kPositionsPerTask, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> scratch;
    scratch.resize(cpu::reading_scratch(reading));
    for (int64_t b = begin; b < end; ++b)
      cpu::read_members(reading, arguments.at(b), to_found + b * h * d, to_mean + b * d,
                        to_shares + b * h * k, scratch.data());
  });
  return {found, mean, shares};
}

// Gradients of sought [B, H, D], queries [B, D], likeness_weight of each position [B, H], energies [B, K].
std::tuple<Tensor, Tensor, Tensor, Tensor> read_members_backward_cpu(
    const Tensor& grad_found, const Tensor& grad_mean, const Tensor& shares, const Tensor& sought,
    const Tensor& queries, const Tensor& likeness_weight, const Tensor& vectors, const Tensor& energies) {
  const Arguments arguments = check(sought, queries, likeness_weight, vectors, energies);
  const cpu::Reading& reading = arguments.reading;
  const int64_t batch = arguments.batch, h = reading.heads, k = reading.members, d = reading.dim;
  check_gradients(arguments, grad_found, grad_mean, shares);
  const Tensor from_found = dense(grad_found), from_mean = dense(grad_mean), all_shares = dense(shares);
  Tensor grad_sought = make_tensor(sought, {batch, h, d}, ScalarType::Float);
  Tensor grad_queries = make_tensor(sought, {batch, d}, ScalarType::Float);
  Tensor grad_weight = make_tensor(sought, {batch, h}, ScalarType::Float);
  Tensor grad_energies = make_tensor(sought, {batch, k}, ScalarType::Float);
  const auto at = [](const Tensor& t, int64_t row) { return static_cast<float*>(t.data_ptr()) + row; };
  torch::stable::parallel_for(0, batch, kPositionsPerTask, [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> scratch;
    scratch.resize(cpu::reading_scratch(reading));
    for (int64_t b = begin; b < end; ++b)
      cpu::read_members_backward(reading, arguments.at(b), at(all_shares, b * h * k),
                                 at(from_found, b * h * d), at(from_mean, b * d), at(grad_sought, b * h * d),
                                 at(grad_queries, b * d), at(grad_weight, b * h), at(grad_energies, b * k),
                                 scratch.data());
  });
  return {grad_sought, grad_queries, grad_weight, grad_energies};
}

#if defined(AESG_WITH_CUDA)
gpu::ReadMembers on_device(const Arguments& a) {
  for (const auto& [tensor, name] : {std::pair{&a.queries, "queries"},
                                     {&a.weight, "likeness_weight"},
                                     {&a.vectors, "vectors"},
                                     {&a.energies, "energies"}})
    expect_same_device(*tensor, name, a.sought, "sought");
  expect(a.reading.members <= gpu::kMostK, kMemoryError, "energies: expected at most ", gpu::kMostK,
         " members on a CUDA device, got ", a.reading.members);
  expect(a.reading.heads <= gpu::kMostHeads, kMemoryError, "sought: expected at most ", gpu::kMostHeads,
         " heads on a CUDA device, got ", a.reading.heads);
  const auto values = [](const Tensor& t) { return static_cast<const float*>(t.data_ptr()); };
  return {values(a.sought), values(a.queries), values(a.weight),  values(a.vectors), values(a.energies),
          a.batch,          a.reading.heads,   a.reading.members, a.reading.dim};
}

std::tuple<Tensor, Tensor, Tensor> read_members_cuda(const Tensor& sought, const Tensor& queries,
                                                     const Tensor& likeness_weight, const Tensor& vectors,
                                                     const Tensor& energies) {
  const Arguments arguments = check(sought, queries, likeness_weight, vectors, energies);
  const gpu::ReadMembers job = on_device(arguments);
  const OnDevice device(sought);
  Tensor found = make_tensor(sought, {job.batch, job.heads, job.dim}, ScalarType::Float);
  Tensor mean = make_tensor(sought, {job.batch, job.dim}, ScalarType::Float);
  Tensor shares = make_tensor(sought, {job.batch, job.heads, job.members}, ScalarType::Float);
  expect_launched(
      gpu::read_members(job, static_cast<float*>(found.data_ptr()), static_cast<float*>(mean.data_ptr()),
                        static_cast<float*>(shares.data_ptr()), device.stream),
      "read_members");
  return {found, mean, shares};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> read_members_backward_cuda(
    const Tensor& grad_found, const Tensor& grad_mean, const Tensor& shares, const Tensor& sought,
    const Tensor& queries, const Tensor& likeness_weight, const Tensor& vectors, const Tensor& energies) {
  const Arguments arguments = check(sought, queries, likeness_weight, vectors, energies);
  check_gradients(arguments, grad_found, grad_mean, shares);
  const gpu::ReadMembers job = on_device(arguments);
  for (const auto& [tensor, name] :
       {std::pair{&grad_found, "grad_found"}, {&grad_mean, "grad_mean"}, {&shares, "shares"}})
    expect_same_device(*tensor, name, sought, "sought");
  const Tensor from_found = dense(grad_found), from_mean = dense(grad_mean), all_shares = dense(shares);
  const OnDevice device(sought);
  Tensor grad_sought = make_tensor(sought, {job.batch, job.heads, job.dim}, ScalarType::Float);
  Tensor grad_queries = make_tensor(sought, {job.batch, job.dim}, ScalarType::Float);
  Tensor grad_weight = make_tensor(sought, {job.batch, job.heads}, ScalarType::Float);
  Tensor grad_energies = make_tensor(sought, {job.batch, job.members}, ScalarType::Float);
  const auto at = [](const Tensor& t) { return static_cast<float*>(t.data_ptr()); };
  expect_launched(gpu::read_members_backward(
                      job, {at(all_shares), at(from_found), at(from_mean)},
                      {at(grad_sought), at(grad_queries), at(grad_weight), at(grad_energies)}, device.stream),
                  "read_members_backward");
  return {grad_sought, grad_queries, grad_weight, grad_energies};
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) {
  m.impl("read_members", TORCH_BOX(&aesg::read_members_cuda));
  m.impl("read_members_backward", TORCH_BOX(&aesg::read_members_backward_cuda));
}
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) {
  m.impl("read_members", TORCH_BOX(&aesg::read_members_cpu));
  m.impl("read_members_backward", TORCH_BOX(&aesg::read_members_backward_cpu));
}
