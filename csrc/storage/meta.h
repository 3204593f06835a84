// meta.npy: a NumPy structured array of two slots, written in turn so that one is always whole.
#pragma once

#include <optional>
#include <string>

#include "csrc/storage/file.h"
#include "csrc/storage/format.h"

namespace aesg::storage {

// What the first page of a file called meta.npy says it is.
enum class MetaKind {
  kOurs,
  kVersion3,  // the pickled dict of aesg 3.0.0; never unpickled here
  kForeign,
};
MetaKind meta_kind(File& file);

MetaSlot first_slot(int64_t dim, uint64_t epoch);  // of an empty directory
void create_meta(File& file, int64_t dim);         // both slots, synced
void write_slot(File& file, MetaSlot slot);        // sealed, into slot epoch % 2, synced

// The newer sound slot. Throws StorageError: no sound slot, newer version, counts that cannot be, slots that
// contradict each other. `findings` (may be null) collects what is wrong beside it.
MetaSlot read_meta(File& file, std::vector<std::string>* findings = nullptr);

}  // namespace aesg::storage
