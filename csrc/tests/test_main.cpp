#include "csrc/tests/check.h"

int main(int argc, char** argv) { return aesg::testing::run_all(argc, argv); }
