#pragma once

#include <pybind11/pybind11.h>

namespace aesg::bindings {

// Adds what happens to the answers of a call (merging, gathering, keeping) to the module `_core`.
void bind_answers(pybind11::module_& module);

}  // namespace aesg::bindings
