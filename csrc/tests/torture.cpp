// kill -9: aesg_torture [cycles] [seed]. Prints counts; exit status 1 when an acknowledged commit was lost.
//
// A child opens a directory, works and commits; the parent kills it at a random moment, opens the directory
// and compares it with what the child had put into memory that both share, outside the store: which
// generation was acknowledged, and the fingerprints of it and of the one in flight.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>

#include "csrc/base/error.h"
#include "csrc/storage/store.h"
#include "csrc/tests/helpers.h"

namespace {

using namespace aesg;           // NOLINT: a test
using namespace aesg::storage;  // NOLINT: a test
using namespace aesg::testing;  // NOLINT: a test

// What the child tells, written by it alone.
struct Told {
  std::atomic<uint64_t> acknowledged;  // generation
  std::atomic<uint64_t> made;          // the directory was opened once
  std::atomic<uint64_t> prints[4];     // by generation % 4
  std::atomic<uint64_t> failed;
};

OpenOptions options_in(const std::string& directory) {
  OpenOptions options;
  options.directory = directory;
  options.vector_dim = 16;
  options.fold_bytes = 60000;
  options.bulk_bytes = 100000;
  return options;
}

[[noreturn]] void work(const std::string& directory, Told& told, uint64_t seed) {
  try {
    std::mt19937_64 random(seed);
    for (;;) {
      auto store = Store::open(options_in(directory));
      told.made = 1;
      if (store->counters().generation == 0) told.prints[0] = fingerprint(*store);
      for (int commits = 0; commits < 12; ++commits) {
        uint64_t next = store->counters().generation + 1;
        do_step(*store, next * 31 + random() % 7);
        told.prints[next % 4] = fingerprint(*store);
        store->commit();
        told.acknowledged = next;
        if (random() % 10 == 0) store->fold();
      }
      store->close();
    }
  } catch (const std::exception& error) {
    std::printf("child: %s\n", error.what());
    std::fflush(stdout);
    told.failed = 1;
  }
  ::_exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t cycles = argc > 1 ? std::atoll(argv[1]) : 100;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  void* shared = ::mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  Told& told = *new (shared) Told();
  TempDirectory dir;
  const std::string directory = dir.file("m");
  int64_t lost = 0, commits = 0, in_flight = 0, empty = 0;
  for (int64_t cycle = 0; cycle < cycles && lost == 0; ++cycle) {
    if (cycle % 40 == 0) {  // small again, so that a cycle stays short
      std::filesystem::remove_all(directory);
      told.acknowledged = told.made = 0;
    }
    const uint64_t before = told.acknowledged;
    pid_t child = ::fork();
    if (child == 0) work(directory, told, random());
    ::usleep(static_cast<useconds_t>(random() % (cycle % 5 == 0 ? 2000 : 20000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    lost += told.failed;
    try {
      if (cycle % 3 == 0 && told.made) {  // a reader first: it may not repair
        auto reader = open_store(directory, 0, Access::kRead);
        lost += reader->counters().generation < told.acknowledged;
      }
      auto store = Store::open(options_in(directory));
      const uint64_t generation = store->counters().generation;
      const uint64_t acknowledged = told.acknowledged;
      commits += static_cast<int64_t>(acknowledged - before);
      in_flight += generation > acknowledged;
      empty += generation == 0;
      bool good = generation >= acknowledged && generation <= acknowledged + 1 &&
                  (!told.made || fingerprint(*store) == told.prints[generation % 4]);
      for (const std::string& finding : store->verify()) {
        std::printf("cycle %lld: %s\n", static_cast<long long>(cycle), finding.c_str());
        good = false;
      }
      if (!good) {
        std::printf("cycle %lld: acknowledged %llu, found %llu\n", static_cast<long long>(cycle),
                    static_cast<unsigned long long>(acknowledged),
                    static_cast<unsigned long long>(generation));
        ++lost;
      }
      told.acknowledged = generation;
      if (generation == 0) told.prints[0] = fingerprint(*store);
    } catch (const StorageError& error) {
      std::printf("cycle %lld: %s\n", static_cast<long long>(cycle), error.what());
      ++lost;
    }
  }
  std::printf(
      "%lld kills, %lld commits acknowledged, %lld found that were still in flight, %lld before the first: "
      "%lld lost\n",
      static_cast<long long>(cycles), static_cast<long long>(commits), static_cast<long long>(in_flight),
      static_cast<long long>(empty), static_cast<long long>(lost));
  return lost == 0 ? 0 : 1;
}
