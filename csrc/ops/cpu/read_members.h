// A reader's attention to the members of one context, and its derivative, on plain pointers.
#pragma once

#include <cstdint>

namespace aesg::cpu {

// Letters: H heads, K members, D width.
struct Reading {
  int64_t heads, members, dim;
  const float* likeness_weight;  // [H]
};

struct ReadingIn {        // of one position
  const float* sought;    // [H, D]
  const float* query;     // [D]
  const float* vectors;   // [K, D]
  const float* energies;  // [K]; a member without energy is none
};

// found [H, D], mean [D] = sum of energy * vector, shares [H, K].
// scratch: floats, `reading_scratch` of them.
int64_t reading_scratch(const Reading& reading);
void read_members(const Reading& reading, const ReadingIn& in, float* found, float* mean, float* shares,
                  float* scratch);

// From d loss / d found and d mean: d sought [H, D], d query [D], d likeness_weight [H], d energies [K].
void read_members_backward(const Reading& reading, const ReadingIn& in, const float* shares,
                           const float* grad_found, const float* grad_mean, float* grad_sought,
                           float* grad_query, float* grad_weight, float* grad_energies, float* scratch);

}  // namespace aesg::cpu
