#pragma once

#include <pybind11/pybind11.h>

namespace aesg::bindings {

// Adds the graph functions (birth, edges, digest, sweep) to the module `_core`.
void bind_graph(pybind11::module_& module);

}  // namespace aesg::bindings
