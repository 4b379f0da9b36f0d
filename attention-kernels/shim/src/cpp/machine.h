// One block of threads that runs, and the detector that watches it. There is one machine in a process, and it is not thread-safe:
// the Rust side holds a lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../../include/cuda_host_shim/runtime.h"
#include "context.h"
#include "memory.h"
#include "report.h"
#include "shadow.h"

namespace kv_shim {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;

// A CUDA thread.
struct Fiber {
  enum class State { Ready, AtBarrier, InCollective, Done };

  Context context;
  State state;
  unsigned linear, warp, lane;
  Index3 index;
  // Of the barrier that the thread waits at, or else the last one that it passed; no file before the first.
  Site barrier;
  // While in a collective, what the thread asked for; afterwards what it got.
  CollectiveCall call;
  std::uint64_t result;
  // `clocks[lane]` is the thread's own; the others, what it knows of the lanes of its warp.
  std::array<std::uint32_t, kWarp> clocks;
};

enum class Order : std::uint32_t { Ascending = 0, Descending = 1, Random = 2 };

enum class Access { Read, Write, Atomic };

// The file's name without its folders, and the line.
std::string text_of(const Site& site);
bool same_site(const Site& a, const Site& b);

class Machine {
 public:
  GlobalMemory global;
  SharedMemory shared;
  Report report;

  void set_order(Order order, std::uint64_t seed);
  void launch(const char* name, const LaunchShape& shape, void (*body)(const void*), const void* context);

  // From here on: what the thread that runs asks for.
  bool running() const { return current_ != nullptr; }
  const Fiber& current() const { return *current_; }
  Index3 block_index() const { return block_; }
  const LaunchShape& shape() const { return shape_; }
  void barrier(Site site);
  std::uint64_t collective(const CollectiveCall& call);
  void* shared_array(const void* key, const char* name, std::size_t bytes, std::size_t align);
  void access(const void* address, std::size_t bytes, Access access, const void* code);
  // Reports, and leaves the thread for good; the launch ends.
  [[noreturn]] void stop(const std::string& what, const void* code = nullptr, const std::string& detail = "");

 private:
  // machine.cpp: who runs when
  static void fiber_main();
  void run_block(unsigned long long block);
  void start_fibers();
  bool run_ready_fibers();
  void pass_barrier();
  void yield(Fiber::State state);
  void shuffle(std::vector<unsigned>& order);
  // `what` is what tells findings apart; `detail` only the first of its kind keeps.
  void find(const std::string& what, const void* code = nullptr, const std::string& detail = "");
  std::string place() const;

  // warp.cpp: what lanes do together
  unsigned live_lanes(unsigned warp) const;
  void complete_if_all_are_here(unsigned warp, unsigned mask);
  void complete_collectives_without(const Fiber& gone);
  std::uint64_t result_of(const Fiber& fiber);
  void join_clocks(unsigned warp, unsigned lanes);
  void report_deadlock();
  std::string waits_of(unsigned warp) const;

  // detector.cpp: what the thread that runs may touch
  Stamp stamp(Access access) const;
  bool in_this_block(const Stamp& stamp) const { return stamp.epoch >= block_epoch_; }
  bool is_before_now(const Stamp& stamp, const Region& region) const;
  bool same_warp(const Stamp& a, const Stamp& b) const;
  void remember_read(Cell& cell, const Region& region);
  const Stamp* conflict(const Cell& cell, const Region& region, Access access) const;
  void access_region(Region& region, std::uintptr_t at, std::size_t bytes, Access access, const void* code);
  void access_byte(Region& region, std::uintptr_t at, Access access, const void* code);
  void report_race(const Region& region, std::uintptr_t at, const Stamp& with, bool with_write, Access access,
                   const void* code);

  Order order_ = Order::Ascending;
  std::uint64_t random_ = 1;

  const char* name_ = "";
  LaunchShape shape_ = {};
  void (*body_)(const void*) = nullptr;
  const void* body_context_ = nullptr;

  Index3 block_ = {};
  std::vector<Fiber> fibers_;
  std::vector<unsigned> turns_;  // in which order fibers run
  Stacks stacks_;
  Context scheduler_;
  Fiber* current_ = nullptr;
  unsigned done_ = 0;
  bool stopped_ = false;

  // Epochs of the launch, of the block and of what runs, in this order.
  std::uint32_t launch_epoch_ = 0, block_epoch_ = 0, epoch_ = 0;
};

Machine& machine();

}  // namespace kv_shim
