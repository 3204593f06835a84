// pack_rows as torch sees it: checks, the loop on the CPU, registration.
#include <algorithm>
#include <tuple>

#include "csrc/ops/device.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

struct Arguments {
  Tensor rows, chosen;   // contiguous
  const int64_t* most;   // [1] or null
  int64_t count, width;  // n, D
};

// All checks, on every device.
Arguments check(const Tensor& rows, const Tensor& chosen, const std::optional<Tensor>& most) {
  expect_dense<float>(rows, "rows", 2, "[n, D]");
  expect_dense<uint8_t>(chosen, "chosen", 1, "[n]");
  expect_same_device(chosen, "chosen", rows, "rows");
  expect(chosen.size(0) == rows.size(0), kMemoryError, "chosen: expected ", rows.size(0),
         " values as in rows, got ", shape_of{chosen});
  if (most.has_value()) {
    expect_dense<int64_t>(*most, "most", 1, "[1]");
    expect_same_device(*most, "most", rows, "rows");
    expect(most->size(0) == 1, kMemoryError, "most: expected shape [1], got ", shape_of{*most});
  }
  return {dense(rows), dense(chosen),
          most.has_value() ? static_cast<const int64_t*>(most->data_ptr()) : nullptr, rows.size(0),
          rows.size(1)};
}

struct Packed {
  Tensor rows, places, count;
  explicit Packed(const Arguments& a)
      : rows(make_tensor(a.rows, {a.count, a.width}, ScalarType::Float)),
        places(make_tensor(a.rows, {a.count}, ScalarType::Long)),
        count(make_tensor(a.rows, {1}, ScalarType::Long)) {}
};

std::tuple<Tensor, Tensor, Tensor> pack_rows_cpu(const Tensor& rows, const Tensor& chosen,
                                                 std::optional<Tensor> most) {
  const Arguments a = check(rows, chosen, most);
  const Packed made(a);
  const auto* from = static_cast<const float*>(a.rows.data_ptr());
  const auto* wanted = static_cast<const uint8_t*>(a.chosen.data_ptr());
  auto* to = static_cast<float*>(made.rows.data_ptr());
  auto* places = static_cast<int64_t*>(made.places.data_ptr());
  const int64_t limit = a.most == nullptr ? a.count : std::clamp<int64_t>(*a.most, 0, a.count);
  int64_t count = 0;
  for (int64_t row = 0; row < a.count; ++row) {
    const bool goes = wanted[row] != 0 && count < limit;
    places[row] = goes ? count : -1;
    if (!goes) continue;
    std::copy_n(from + row * a.width, a.width, to + count * a.width);
    ++count;
  }
  std::fill(to + count * a.width, to + a.count * a.width, 0.0f);
  *static_cast<int64_t*>(made.count.data_ptr()) = count;
  return {made.rows, made.places, made.count};
}

#if defined(AESG_WITH_CUDA)
std::tuple<Tensor, Tensor, Tensor> pack_rows_cuda(const Tensor& rows, const Tensor& chosen,
                                                  std::optional<Tensor> most) {
  const Arguments a = check(rows, chosen, most);
  const OnDevice device(rows);
  const Packed made(a);
  const gpu::PackRows job{static_cast<const float*>(a.rows.data_ptr()),
                          static_cast<const uint8_t*>(a.chosen.data_ptr()),
                          a.most,
                          a.count,
                          a.width,
                          static_cast<float*>(made.rows.data_ptr()),
                          static_cast<int64_t*>(made.places.data_ptr()),
                          static_cast<int64_t*>(made.count.data_ptr())};
  Tensor workspace = make_workspace(rows, gpu::pack_rows_workspace(job));
  expect_launched(gpu::pack_rows(job, workspace.data_ptr(), device.stream), "pack_rows");
  return {made.rows, made.places, made.count};
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("pack_rows", TORCH_BOX(&aesg::pack_rows_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("pack_rows", TORCH_BOX(&aesg::pack_rows_cpu)); }
