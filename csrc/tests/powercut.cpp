// Power cuts: aesg_powercut [states] [seed]. Prints counts; exit status 1 when a state broke a promise.
//
// A session runs on a simulated disk. Before calls drawn at random the power goes: what the disk may hold
// then is drawn, opened, and compared with the commits that were acknowledged. Some of the openings are
// themselves cut. At the end the same is done with syncs that lie and syncs in a wrong order, to show that
// the test sees what it looks for.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"
#include "csrc/tests/helpers.h"
#include "csrc/tests/sim_fs.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

struct Counts {
  int64_t states = 0, sessions = 0, recoveries_cut = 0, violations = 0;
};

class Campaign {
 public:
  // `lying`: a file whose syncs do nothing; with `until`, they happen only behind those of that file.
  Campaign(uint64_t seed, std::string lying, std::string until = "")
      : random_(seed), lying_(std::move(lying)), until_(std::move(until)) {}

  Counts run(int64_t states) {
    while (counts_.states < states) session(states);
    return counts_;
  }
  // Until the first violation, at most so many states.
  Counts search(int64_t states) {
    while (counts_.states < states && counts_.violations == 0) session(states);
    return counts_;
  }

 private:
  OpenOptions options_on(SimFileSystem& fs) {
    OpenOptions options;
    options.directory = "/m";
    options.vector_dim = 4;
    options.file_system = &fs;
    options.fold_bytes = fold_bytes_;
    options.bulk_bytes = 20000;  // where births overflow a row group
    return options;
  }

  void session(int64_t states) {
    ++counts_.sessions;
    // A journal that is folded at every few commits, or one with room to write short records through to.
    fold_bytes_ = random_() % 2 ? 6000 : 60000;
    SimFileSystem fs;
    if (!until_.empty()) {
      fs.late = lying_;
      fs.until = until_;
    } else if (!lying_.empty()) {
      fs.unsynced.insert(lying_);
    }
    std::vector<uint64_t> prints;  // by generation; the last may be in flight
    uint64_t acknowledged = 0;
    bool made = false;
    fs.on_call = [&] {
      if (counts_.states < states && random_() % 3 == 0) check(fs, prints, acknowledged, made);
    };
    std::shared_ptr<Store> store = Store::open(options_on(fs));
    made = true;
    prints.push_back(fingerprint(*store));
    const uint64_t first = random_() % 60, steps = 4 + random_() % 14;
    for (uint64_t step = 0; step < steps; ++step) {
      do_step(*store, first + step);
      auto call = std::move(fs.on_call);  // reading for the fingerprint is no place to cut
      fs.on_call = nullptr;
      prints.push_back(fingerprint(*store));
      fs.on_call = std::move(call);
      store->commit();
      acknowledged = step + 1;
      if (random_() % 6 == 0) store->fold();
      if (random_() % 8 == 0) {
        store->close();
        store = Store::open(options_on(fs));
      }
    }
    store->close();
    fs.on_call = nullptr;
  }

  void check(const SimFileSystem& fs, const std::vector<uint64_t>& prints, uint64_t acknowledged, bool made) {
    ++counts_.states;
    std::unique_ptr<SimFileSystem> disk = fs.after_power_cut(random_);
    for (int cuts = 0; random_() % 8 == 0 && cuts < 3; ++cuts) {  // the power goes again while it opens
      ++counts_.recoveries_cut;
      struct Cut {};
      int64_t at = disk->calls + static_cast<int64_t>(random_() % 60);
      std::unique_ptr<SimFileSystem> next;
      SimFileSystem* d = disk.get();
      disk->on_call = [&] {
        if (!next && d->calls == at) next = d->after_power_cut(random_);
      };
      try {
        Store::open(options_on(*disk))->close();
      } catch (const StorageError& error) {
        violation(error.what(), acknowledged);
      }
      disk->on_call = nullptr;
      if (next) disk = std::move(next);
    }
    try {
      auto store = Store::open(options_on(*disk));
      uint64_t generation = store->counters().generation;
      if (generation < acknowledged || (made && generation >= prints.size())) {
        violation("generation " + std::to_string(generation), acknowledged);
      } else if (made && fingerprint(*store) != prints[generation]) {
        violation("other contents in generation " + std::to_string(generation), acknowledged);
      } else if (random_() % 16 == 0) {
        for (const std::string& finding : store->verify()) violation(finding, acknowledged);
      }
    } catch (const StorageError& error) {
      violation(error.what(), acknowledged);
    }
  }

  void violation(const std::string& what, uint64_t acknowledged) {
    if (++counts_.violations <= 5 && lying_.empty()) {
      std::printf("violation: %s (acknowledged was %llu)\n", what.c_str(),
                  static_cast<unsigned long long>(acknowledged));
    }
  }

  std::mt19937_64 random_;
  std::string lying_, until_;
  int64_t fold_bytes_ = 0;
  Counts counts_;
};

}  // namespace

int main(int argc, char** argv) {
  // The simulated disks come and go by the thousand: their memory stays with the process.
  ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
  const int64_t states = argc > 1 ? std::atoll(argv[1]) : 3000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  Counts c = Campaign(seed, "").run(states);
  std::printf(
      "%lld states of the disk after a power cut in %lld sessions, %lld openings cut again: %lld "
      "violations\n",
      static_cast<long long>(c.states), static_cast<long long>(c.sessions),
      static_cast<long long>(c.recoveries_cut), static_cast<long long>(c.violations));
  bool good = c.violations == 0;
  for (const char* name :
       {"journal.aesg", "nodes.aesg", "edges.aesg", "state.aesg", "evolution.aesglog", "meta.npy"}) {
    Counts lied = Campaign(seed, name).run(states < 3000 ? states : 3000);
    std::printf("with a sync of %s that lies: %lld violations in %lld states\n", name,
                static_cast<long long>(lied.violations), static_cast<long long>(lied.states));
    good = good && lied.violations > 0;
  }
  const char* const orders[][2] = {{"nodes.aesg", "meta.npy"},   {"edges.aesg", "meta.npy"},
                                   {"state.aesg", "meta.npy"},   {"evolution.aesglog", "meta.npy"},
                                   {"meta.npy", "journal.aesg"}, {"nodes.aesg", "journal.aesg"},
                                   {"journal.aesg", "meta.npy"}};
  for (const auto& [late, until] : orders) {
    Counts wrong = Campaign(seed, late, until).search(200000);
    std::printf("with %s synced only behind %s: %lld violations in %lld states\n", late, until,
                static_cast<long long>(wrong.violations), static_cast<long long>(wrong.states));
    good = good && wrong.violations > 0;
  }
  return good ? 0 : 1;
}
