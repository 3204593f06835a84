// The two errors of the torch-free part. The bindings turn them into AESGStorageError and AESGMemoryError.
#pragma once

#include <stdexcept>
#include <string>

namespace aesg {

// A file, directory or device that cannot be read, trusted or written.
class StorageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An argument that cannot work. Thrown before anything was changed.
class ArgumentError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

}  // namespace aesg
