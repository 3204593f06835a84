// The arithmetic of use, one source for the store (csrc/graph/reinforce.cpp) and the ops on columns. Every
// operation rounds by itself: -ffp-contract=off on the host, --fmad=false on the device.
#pragma once

#include "csrc/base/host_device.h"

namespace aesg {

// Relevance after a use with energy e in [0, 1]: it moves towards 1. Imported relevance may lie above 1; use
// never lowers it.
AESG_HD inline float relevance_after_use(float relevance, float gain, float energy) {
  return relevance < 1.0f ? relevance + gain * energy * (1.0f - relevance) : relevance;
}

// Confidence of an edge that was used: it moves towards 1 by `rate`.
AESG_HD inline float confidence_after_use(float confidence, float rate) {
  return confidence + rate * (1.0f - confidence);
}

}  // namespace aesg
