#include "csrc/storage/lock.h"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "csrc/storage/format.h"

namespace aesg::storage {
namespace {

// Every Locks of this process. The mutex is held across fork(), so the child sees a whole set.
std::mutex& registry_mutex() {
  static std::mutex* mutex = new std::mutex;  // never destroyed: stores may outlive static destruction
  return *mutex;
}
std::set<Locks*>& registry() {
  static auto* all = new std::set<Locks*>;
  return *all;
}

void before_fork() { registry_mutex().lock(); }
void after_fork_in_parent() { registry_mutex().unlock(); }
void after_fork_in_child() {
  for (Locks* locks : registry()) locks->abandon();
  registry_mutex().unlock();
}

}  // namespace

Locks::Locks() {
  static const int once = ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  (void)once;
  std::lock_guard<std::mutex> guard(registry_mutex());
  registry().insert(this);
}

Locks::~Locks() {
  std::lock_guard<std::mutex> guard(registry_mutex());
  registry().erase(this);
}

void Locks::abandon() noexcept {
  in_child_ = true;
  if (lock_) lock_->close();
  if (gate_) gate_->close();
}

void Locks::take_writer(FileSystem& fs, const std::string& directory) {
  auto file = fs.open(directory + "/" + names::kLock, OpenMode::kCreate);
  std::array<char, 24> text{};
  if (!file->try_lock(true)) {
    int64_t n = file->read_until_end(text.data(), 20, 0);
    std::string pid(text.data(), static_cast<size_t>(n));
    while (!pid.empty() && (pid.back() < '0' || pid.back() > '9')) pid.pop_back();
    bool own = pid == std::to_string(::getpid());
    throw StorageError("'" + directory + "' is open for writing by process " + (pid.empty() ? "?" : pid) +
                       (own ? " (this one)" : "") + "; one writer at a time, readers use read_only");
  }
  std::string pid = std::to_string(::getpid()) + "\n";
  file->resize(0);
  file->write_at(pid.data(), static_cast<int64_t>(pid.size()), 0);
  lock_ = std::move(file);
}

void Locks::enter_gate(FileSystem& fs, const std::string& directory) {
  if (!gate_) gate_ = fs.open(directory + "/" + names::kNodes, OpenMode::kRead);
  if (!gate_) throw StorageError("'" + directory + "/" + names::kNodes + "' is missing");
  constexpr int kTries = 30000;  // of a millisecond
  for (int i = 0; i < kTries; ++i) {
    if (gate_->try_lock(false)) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  throw StorageError("'" + directory + "' has been in the middle of a fold for 30 seconds; try again later");
}

void Locks::leave_gate() {
  if (gate_ && !in_child_) gate_->unlock();
}

bool Locks::close_gate(FileSystem& fs, const std::string& directory) {
  if (!gate_) gate_ = fs.open(directory + "/" + names::kNodes, OpenMode::kRead);
  if (!gate_) throw StorageError("'" + directory + "/" + names::kNodes + "' is missing");
  return gate_->try_lock(true);
}

void Locks::open_gate() {
  if (gate_ && !in_child_) gate_->unlock();
}

void Locks::release() {
  if (lock_ && !in_child_) {
    try {
      lock_->resize(0);
    } catch (const StorageError&) {
      // The pid is only a hint for the next error message.
    }
    try {
      lock_
          ->unlock();  // a child just forked may not have given up its copies yet: closing ours is not enough
      if (gate_) gate_->unlock();
    } catch (const StorageError&) {
      // Closing does it.
    }
  }
  lock_.reset();
  gate_.reset();
}

}  // namespace aesg::storage
