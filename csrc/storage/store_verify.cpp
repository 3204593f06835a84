// verify(): every checksum, every chain, every count, read from the disk anew.
#include <algorithm>

#include "csrc/storage/store_impl.h"

namespace aesg::storage {
namespace {

constexpr size_t kMostFindings = 100;

void check_pages(File& file, Checksums sums, Summed which, const char* name, int64_t pages,
                 const std::vector<bool>& in_journal, std::vector<std::string>& findings) {
  constexpr int64_t kStep = 4096;
  for (int64_t first = 0; first < pages && findings.size() < kMostFindings; first += kStep) {
    int64_t count = std::min(kStep, pages - first);
    std::vector<uint32_t> found = page_sums_of(file, first, count);
    std::vector<uint32_t> wanted = sums.read(which, first, count);
    for (int64_t i = 0; i < count && findings.size() < kMostFindings; ++i) {
      size_t at = static_cast<size_t>(i), page = static_cast<size_t>(first + i);
      // A page that a fold was cut short in has its old or its new sum; the journal holds its lines.
      if (found[at] == wanted[at] || (page < in_journal.size() && in_journal[page])) continue;
      findings.push_back(
          std::string(name) + ": bytes " + std::to_string(kHeaderBytes + (first + i) * kPageBytes) + " to " +
          std::to_string(kHeaderBytes + (first + i + 1) * kPageBytes) + " do not match their checksum");
    }
  }
}

void note_page(std::vector<bool>& pages, const Range& range) {
  size_t last = static_cast<size_t>((range.first + range.count - 1) * kLineBytes / kPageBytes);
  if (pages.size() <= last) pages.resize(last + 1);
  for (size_t p = static_cast<size_t>(range.first * kLineBytes / kPageBytes); p <= last; ++p) pages[p] = true;
}

}  // namespace

// Chains and counts of what is mapped, as of the last commit.
void check_structure(Store& s, std::vector<std::string>& findings) {
  const Counters& c = s.counters();
  const auto slots = static_cast<int64_t>(c.node_count), blocks = static_cast<int64_t>(c.block_count);
  auto say = [&](const std::string& text) {
    if (findings.size() < kMostFindings) findings.push_back(text);
  };
  auto slot_name = [](int64_t i) { return "slot " + std::to_string(i); };
  auto block_name = [](int64_t i) { return "edge block " + std::to_string(i); };

  std::vector<bool> seen(static_cast<size_t>(slots));
  for (int64_t i = c.free_slot; i != -1;) {
    if (i < 0 || i >= slots || seen[static_cast<size_t>(i)]) {
      say("the list of free slots leads to " + slot_name(i) + " (outside or twice)");
      break;
    }
    seen[static_cast<size_t>(i)] = true;
    if (*s.at<uint64_t>(NodeColumn::kId, i) != 0)
      say(slot_name(i) + " is in the list of free slots and has an id");
    i = -static_cast<int64_t>(*s.at<int32_t>(NodeColumn::kFirstBlock, i)) - 2;
  }
  std::vector<bool> used(static_cast<size_t>(blocks));
  for (int64_t i = c.free_block; i != -1;) {
    if (i < 0 || i >= blocks || used[static_cast<size_t>(i)]) {
      say("the list of free blocks leads to " + block_name(i) + " (outside or twice)");
      break;
    }
    used[static_cast<size_t>(i)] = true;
    if (s.cold(i)->source != -1 || s.hot(i)->count != 0)
      say(block_name(i) + " is in the list of free blocks and in use");
    i = s.hot(i)->next;
  }

  uint64_t active = 0, edges = 0;
  for (int64_t i = 0; i < slots; ++i) {
    uint64_t id = *s.at<uint64_t>(NodeColumn::kId, i);
    uint8_t is_active = *s.at<uint8_t>(NodeColumn::kIsActive, i);
    active += is_active != 0;
    if (is_active > 1) say(slot_name(i) + ": is_active is " + std::to_string(is_active));
    if (id >= c.next_id) say(slot_name(i) + ": id " + std::to_string(id) + " was never given");
    if (seen[static_cast<size_t>(i)]) continue;
    if (id == 0) {
      say(slot_name(i) + " is free and in no list");
      continue;
    }
    for (int64_t b = *s.at<int32_t>(NodeColumn::kFirstBlock, i); b != -1;) {
      if (b < 0 || b >= blocks || used[static_cast<size_t>(b)]) {
        say("the edges of " + slot_name(i) + " lead to " + block_name(b) + " (outside or twice)");
        break;
      }
      used[static_cast<size_t>(b)] = true;
      const HotBlock& hot = *s.hot(b);
      const ColdBlock& cold = *s.cold(b);
      if (cold.source != i)
        say(block_name(b) + ": source is " + std::to_string(cold.source) + ", expected " + std::to_string(i));
      if (hot.count < 0 || hot.count > kBlockEdges) {
        say(block_name(b) + ": count is " + std::to_string(hot.count));
      } else {
        edges += static_cast<uint64_t>(hot.count);
        for (int k = 0; k < kBlockEdges; ++k) {
          bool in_use = k < hot.count;
          if (in_use ? hot.target[k] < 0 || hot.target[k] >= slots : hot.target[k] != -1) {
            say(block_name(b) + ": target " + std::to_string(k) + " is " + std::to_string(hot.target[k]));
          }
        }
      }
      b = hot.next;
    }
  }
  for (int64_t b = 0; b < blocks; ++b) {
    if (!used[static_cast<size_t>(b)]) say(block_name(b) + " belongs to no slot and to no list");
  }
  if (active != c.active_count) {
    say("active_count is " + std::to_string(c.active_count) + ", counted were " + std::to_string(active));
  }
  if (edges != c.edge_count) {
    say("edge_count is " + std::to_string(c.edge_count) + ", counted were " + std::to_string(edges));
  }
}

std::vector<std::string> Store::verify() {
  std::vector<std::string> findings;
  OpenOptions options = impl_->options;
  options.access = Access::kRead;
  options.vector_dim = 0;
  std::shared_ptr<Store> fresh;
  try {
    fresh = open(options);
    Impl& f = *fresh->impl_;
    std::vector<bool> node_pages, edge_pages;
    for (const JournalEntry& entry : f.journal.entries()) {
      f.journal.read(entry).for_each_range([&](const Range& range, const uint8_t*) {
        if (range.target == Target::kNodes) note_page(node_pages, range);
        if (range.target == Target::kEdges) note_page(edge_pages, range);
      });
    }
    read_meta(*f.meta, &findings);
    check_pages(*f.nodes, Checksums(*f.sums), Summed::kNodes, names::kNodes,
                f.node_file_groups * layout_.group_bytes() / kPageBytes, node_pages, findings);
    check_pages(*f.edges, Checksums(*f.sums), Summed::kEdges, names::kEdges,
                f.edge_file_groups * kEdgeGroupBytes / kPageBytes, edge_pages, findings);
  } catch (const StorageError& error) {
    findings.push_back(error.what());
    return findings;
  }
  for (auto check :
       {+[](Store& s) { s.events(0, s.counters().event_count); }, +[](Store& s) { s.state(); }}) {
    try {
      check(*fresh);
    } catch (const StorageError& error) {
      findings.push_back(error.what());
    }
  }
  if (impl_->writer() && fresh->counters().generation != impl_->committed.generation) {
    findings.push_back("the files are of generation " + std::to_string(fresh->counters().generation) +
                       ", committed was " + std::to_string(impl_->committed.generation));
  }
  check_structure(*fresh, findings);
  return findings;
}

}  // namespace aesg::storage
