#include "csrc/tests/sim_fs.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace aesg::testing {

using storage::File;
using storage::OpenMode;
using storage::PathKind;

namespace {

constexpr int64_t kSector = 512;

std::string base_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

}  // namespace

class SimFile final : public File {
 public:
  SimFile(SimFileSystem& fs, const std::string& path, std::shared_ptr<SimFileSystem::Inode> inode)
      : File(path), fs_(fs), inode_(std::move(inode)) {}
  ~SimFile() override { close(); }

  void close() override {
    if (inode_) drop_lock();
    inode_.reset();
  }

 protected:
  int64_t raw_size() override { return static_cast<int64_t>(inode_->now.size()); }
  int64_t raw_links() override {
    return std::count_if(fs_.names_.begin(), fs_.names_.end(),
                         [this](const auto& entry) { return entry.second == inode_; });
  }
  int64_t raw_read(void* data, int64_t bytes, int64_t offset) override {
    int verdict = fs_.next_call("read", path());
    if (verdict < 0) return verdict;
    int64_t n = std::clamp<int64_t>(static_cast<int64_t>(inode_->now.size()) - offset, 0, bytes);
    if (verdict == 1) n = (n + 1) / 2;
    if (n) std::memcpy(data, inode_->now.data() + offset, static_cast<size_t>(n));
    return n;
  }
  int64_t raw_write(const void* data, int64_t bytes, int64_t offset) override {
    int verdict = fs_.next_call("write", path());
    if (verdict < 0) return verdict;
    int64_t size = static_cast<int64_t>(inode_->now.size());
    int64_t room = fs_.capacity - fs_.used() + std::max<int64_t>(size - offset, 0);
    int64_t n = std::min(bytes, room);
    if (n <= 0) return -ENOSPC;
    if (verdict == 1) n = (n + 1) / 2;
    if (offset + n > size) grow_to(offset + n);
    std::memcpy(inode_->now.data() + offset, data, static_cast<size_t>(n));
    touch(offset, offset + n);
    return n;
  }
  int raw_resize(int64_t bytes) override {
    int verdict = fs_.next_call("resize", path());
    if (verdict < 0) return verdict;
    if (bytes < static_cast<int64_t>(inode_->now.size())) {
      touch(bytes, static_cast<int64_t>(inode_->now.size()));
      inode_->now.resize(static_cast<size_t>(bytes));
    } else {
      grow_to(bytes);
    }
    return 0;
  }
  int raw_sync() override {
    int verdict = fs_.next_call("sync", path());
    if (verdict < 0) {
      inode_->touched.clear();  // the worst that kernels do: written pages are taken for clean
      return verdict;
    }
    if (fs_.unsynced.count(base_name(path()))) return 0;
    if (fs_.late == base_name(path())) {
      fs_.waiting_ = inode_;
      return 0;
    }
    settle(*inode_);
    settle_waiting();
    return 0;
  }
  // Not through any cache: a failure leaves old, new and torn sectors, and nothing else becomes durable.
  int64_t raw_write_through(const void* data, int64_t bytes, int64_t offset) override {
    const int64_t n = raw_write(data, bytes, offset);
    if (n != bytes) return n;
    if (int verdict = fs_.next_call("sync", path()); verdict != 0) return verdict < 0 ? verdict : 0;
    if (fs_.unsynced.count(base_name(path()))) return n;
    if (fs_.late == base_name(path())) {
      fs_.waiting_ = inode_;
      return n;
    }
    settle(*inode_, offset / kSector, (offset + n) / kSector);
    settle_waiting();
    return n;
  }
  int raw_map(void* address, int64_t offset, int64_t bytes) override {
    int verdict = fs_.next_call("map", path());
    if (verdict < 0) return verdict;
    auto length = static_cast<size_t>(bytes);
    void* at =
        ::mmap(address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (at == MAP_FAILED) return -errno;
    copy_out(address, offset, bytes);
    return 0;
  }
  int raw_release(void* address, int64_t offset, int64_t bytes) override {
    int verdict = fs_.next_call("release", path());
    if (verdict < 0) return verdict;
    copy_out(address, offset, bytes);
    return 0;
  }
  int raw_lock(bool exclusive) override {
    if (fs_.on_lock) fs_.on_lock();
    int own_shared = held_ == 1, own_exclusive = held_ == 2;
    if (inode_->exclusive > own_exclusive || (exclusive && inode_->shared > own_shared)) return -EWOULDBLOCK;
    drop_lock();
    ++(exclusive ? inode_->exclusive : inode_->shared);
    held_ = exclusive ? 2 : 1;
    return 0;
  }
  int raw_unlock() override {
    drop_lock();
    return 0;
  }

 private:
  void copy_out(void* address, int64_t offset, int64_t bytes) {
    int64_t n = std::clamp<int64_t>(static_cast<int64_t>(inode_->now.size()) - offset, 0, bytes);
    if (n) std::memcpy(address, inode_->now.data() + offset, static_cast<size_t>(n));
  }
  void drop_lock() {
    if (held_ == 1) --inode_->shared;
    if (held_ == 2) --inode_->exclusive;
    held_ = 0;
  }
  void grow_to(int64_t bytes) {
    touch(static_cast<int64_t>(inode_->now.size()), bytes);
    inode_->now.resize(static_cast<size_t>(bytes));
  }
  void touch(int64_t begin, int64_t end) {
    for (int64_t s = begin / kSector; s * kSector < end; ++s) inode_->touched.insert(s);
  }
  void settle_waiting() {
    if (!fs_.waiting_ || fs_.until != base_name(path())) return;
    settle(*fs_.waiting_);
    fs_.waiting_.reset();
  }
  static void settle(SimFileSystem::Inode& inode) {
    inode.durable.resize(inode.now.size());
    settle(inode, 0, INT64_MAX);
  }
  // Sectors [first, last).
  static void settle(SimFileSystem::Inode& inode, int64_t first, int64_t last) {
    const auto from = inode.touched.lower_bound(first), to = inode.touched.lower_bound(last);
    for (auto it = from; it != to; ++it) {
      const int64_t sector = *it;
      int64_t begin = sector * kSector,
              end = std::min(begin + kSector, static_cast<int64_t>(inode.now.size()));
      if (begin >= end) continue;
      if (static_cast<int64_t>(inode.durable.size()) < end) inode.durable.resize(static_cast<size_t>(end));
      std::memcpy(inode.durable.data() + begin, inode.now.data() + begin, static_cast<size_t>(end - begin));
    }
    inode.touched.erase(from, to);
  }

  SimFileSystem& fs_;
  std::shared_ptr<SimFileSystem::Inode> inode_;
  int held_ = 0;  // 1 shared, 2 exclusive
};

int SimFileSystem::next_call(const char* what, const std::string& path) {
  if (on_call) {
    at = std::string(what) + " " + base_name(path);
    on_call();
  }
  int64_t call = calls++;
  if (fail_at < 0 || call < fail_at || (!fail_for_ever && call > fail_at)) return 0;
  return fail_with == 0 ? 1 : -fail_with;
}

int64_t SimFileSystem::used() const {
  int64_t sum = 0;
  for (const auto& [path, inode] : names_) sum += static_cast<int64_t>(inode->now.size());
  return sum;
}

std::vector<uint8_t>* SimFileSystem::bytes(const std::string& path) {
  auto it = names_.find(path);
  return it == names_.end() ? nullptr : &it->second->now;
}

void SimFileSystem::rename_now(const std::function<void(Names&)>& change) {
  change(names_);
  pending_names_.push_back(change);
}

std::unique_ptr<File> SimFileSystem::raw_open(const std::string& path, OpenMode mode, int* error) {
  *error = std::min(next_call("open", path), 0);
  if (*error < 0) return nullptr;
  if (!names_.count(path)) {
    *error = -ENOENT;
    if (mode != OpenMode::kCreate) return nullptr;
    auto inode = std::make_shared<Inode>();
    rename_now([path, inode](Names& names) { names[path] = inode; });
  }
  return std::make_unique<SimFile>(*this, path, names_[path]);
}

int SimFileSystem::raw_kind(const std::string& path, PathKind* kind) {
  int verdict = std::min(next_call("look at", path), 0);
  *kind = names_.count(path)         ? PathKind::kFile
          : directories_.count(path) ? PathKind::kDirectory
                                     : PathKind::kMissing;
  return verdict;
}

int SimFileSystem::raw_make_directory(const std::string& path) {
  int verdict = std::min(next_call("make directory", path), 0);
  if (verdict == 0) directories_.insert(path);  // taken as durable: the store's files are what is tested
  return verdict;
}

int SimFileSystem::raw_rename(const std::string& from, const std::string& to) {
  int verdict = std::min(next_call("rename", from), 0);
  if (verdict < 0) return verdict;
  if (!names_.count(from)) return -ENOENT;
  rename_now([from, to](Names& names) {
    auto it = names.find(from);
    if (it == names.end()) return;
    names[to] = it->second;
    names.erase(from);
  });
  return 0;
}

int SimFileSystem::raw_remove(const std::string& path) {
  int verdict = std::min(next_call("remove", path), 0);
  if (verdict < 0) return verdict;
  if (!names_.count(path)) return -ENOENT;
  rename_now([path](Names& names) { names.erase(path); });
  return 0;
}

int SimFileSystem::raw_remove_directory(const std::string& path) {
  int verdict = std::min(next_call("remove directory", path), 0);
  if (verdict == 0) directories_.erase(path);
  return verdict;
}

int SimFileSystem::raw_sync_directory(const std::string& path) {
  int verdict = std::min(next_call("sync directory", path), 0);
  if (verdict < 0) return verdict;
  durable_names_ = names_;
  pending_names_.clear();
  return 0;
}

std::unique_ptr<SimFileSystem> SimFileSystem::after_clean_end() const {
  auto copy = std::make_unique<SimFileSystem>();
  copy->directories_ = directories_;
  for (const auto& [path, inode] : names_) {
    auto fresh = std::make_shared<Inode>();
    fresh->now = fresh->durable = inode->now;
    copy->names_[path] = fresh;
  }
  copy->durable_names_ = copy->names_;
  return copy;
}

std::unique_ptr<SimFileSystem> SimFileSystem::after_power_cut(std::mt19937_64& random) const {
  auto copy = std::make_unique<SimFileSystem>();
  copy->directories_ = directories_;
  Names names = durable_names_;
  size_t happened = pending_names_.empty() ? 0 : random() % (pending_names_.size() + 1);
  for (size_t i = 0; i < happened; ++i) pending_names_[i](names);
  for (const auto& [path, inode] : names) {
    auto fresh = std::make_shared<Inode>();
    fresh->now = inode->durable;
    // Nothing, everything, or a mixture of what was not synced reached the disk.
    uint64_t how = random() % 4;
    if (how != 0 && inode->now.size() != inode->durable.size() && (how == 1 || random() % 2)) {
      fresh->now.resize(inode->now.size());
    }
    for (int64_t sector : inode->touched) {
      int64_t begin = sector * kSector;
      int64_t end = std::min({begin + kSector, static_cast<int64_t>(inode->now.size()),
                              static_cast<int64_t>(fresh->now.size())});
      uint64_t fate = how == 0 ? 0 : how == 1 ? 1 : random() % 3;
      if (fate == 0 || begin >= end) continue;
      if (fate == 2)
        (random() % 2 ? begin : end) =
            begin + static_cast<int64_t>(random() % static_cast<uint64_t>(end - begin));
      if (begin < end)
        std::memcpy(fresh->now.data() + begin, inode->now.data() + begin, static_cast<size_t>(end - begin));
    }
    fresh->durable = fresh->now;
    copy->names_[path] = fresh;
  }
  copy->durable_names_ = copy->names_;
  return copy;
}

}  // namespace aesg::testing
