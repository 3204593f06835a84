#include "csrc/bindings/graph_binding.h"

void bind_graph(pybind11::module_&) {}
