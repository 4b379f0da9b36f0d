#include "machine.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace kv_shim {

Machine& machine() {
  static Machine instance;
  return instance;
}

std::string text_of(const Site& site) {
  const char* slash = std::strrchr(site.file, '/');
  return text("%s:%d", slash == nullptr ? site.file : slash + 1, site.line);
}

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

void Machine::set_order(Order order, std::uint64_t seed) {
  order_ = order;
  // Spreads small seeds; the generator must not start at 0.
  random_ = (seed + 1) * 0x9e3779b97f4a7c15ull | 1;
}

void Machine::shuffle(std::vector<unsigned>& order) {
  for (std::size_t i = order.size(); i > 1; i--) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    std::swap(order[i - 1], order[random_ % i]);
  }
}

void Machine::launch(const char* name, const LaunchShape& shape, void (*body)(const void*), const void* context) {
  constexpr std::uint32_t kEpochsLeft = 1u << 31;
  report.clear();
  name_ = name;
  shape_ = shape;
  body_ = body;
  body_context_ = context;
  if (epoch_ > kEpochsLeft) {
    global.forget_accesses();
    epoch_ = 0;
  }
  launch_epoch_ = ++epoch_;
  const unsigned threads = shape.block.x * shape.block.y * shape.block.z;
  stacks_.reserve(threads);
  fibers_.assign(threads, Fiber{});
  turns_.resize(threads);
  shared.begin_launch(shape.dynamic_shared);

  std::vector<unsigned> blocks(std::size_t{shape.grid.x} * shape.grid.y * shape.grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (order_ == Order::Descending) std::reverse(blocks.begin(), blocks.end());
  if (order_ == Order::Random) shuffle(blocks);
  stopped_ = false;
  for (unsigned block : blocks) {
    run_block(block);
    if (stopped_) break;
  }
  current_ = nullptr;
}

void Machine::run_block(unsigned long long block) {
  const Index3 grid = shape_.grid;
  block_ = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
            static_cast<unsigned>(block / grid.x / grid.y)};
  block_epoch_ = ++epoch_;
  shared.begin_block();
  start_fibers();
  while (!stopped_ && done_ < fibers_.size()) {
    if (!run_ready_fibers() && !stopped_) pass_barrier();
  }
}

void Machine::start_fibers() {
  done_ = 0;
  for (unsigned i = 0; i < fibers_.size(); i++) {
    Fiber& fiber = fibers_[i];
    fiber.state = Fiber::State::Ready;
    fiber.linear = i;
    fiber.warp = i / kWarp;
    fiber.lane = i % kWarp;
    fiber.index = {i % shape_.block.x, i / shape_.block.x % shape_.block.y, i / shape_.block.x / shape_.block.y};
    fiber.barrier = {nullptr, 0};
    fiber.clocks.fill(0);
    fiber.clocks[fiber.lane] = 1;
    make_context(fiber.context, stacks_.low(i), stacks_.usable(), fiber_main);
  }
  std::iota(turns_.begin(), turns_.end(), 0u);
  if (order_ == Order::Descending) std::reverse(turns_.begin(), turns_.end());
}

void Machine::fiber_main() {
  Machine& self = machine();
  self.body_(self.body_context_);
  self.yield(Fiber::State::Done);
}

void Machine::yield(Fiber::State state) {
  Fiber& fiber = *current_;
  fiber.state = state;
  switch_context(fiber.context, scheduler_);
}

// Gives every fiber that can run one turn. Whether there was one.
bool Machine::run_ready_fibers() {
  bool ran = false;
  if (order_ == Order::Random) shuffle(turns_);
  for (unsigned i : turns_) {
    Fiber& fiber = fibers_[i];
    if (fiber.state != Fiber::State::Ready) continue;
    ran = true;
    current_ = &fiber;
    switch_context(scheduler_, fiber.context);
    if (stopped_) return true;
    if (fiber.state == Fiber::State::Done) {
      done_++;
      complete_collectives_without(fiber);
    }
  }
  return ran;
}

void Machine::barrier(Site site) {
  current_->barrier = site;
  yield(Fiber::State::AtBarrier);
}

// Nobody can run: lets the threads that wait at a barrier go on, if all the others wait there too.
void Machine::pass_barrier() {
  Fiber* first = nullptr;
  for (Fiber& fiber : fibers_) {
    if (fiber.state == Fiber::State::InCollective) return report_deadlock();
    if (fiber.state != Fiber::State::AtBarrier) continue;
    if (first == nullptr) first = &fiber;
    if (!same_site(fiber.barrier, first->barrier)) {
      current_ = &fiber;
      find("threads of one block wait at different barriers, of " + text_of(first->barrier) + " and of " +
           text_of(fiber.barrier));
    }
  }
  if (done_ > 0) {
    current_ = first;
    find("the barrier of " + text_of(first->barrier) +
         " was not reached by all threads of the block: some left the kernel before");
  }
  epoch_++;
  for (Fiber& fiber : fibers_) {
    if (fiber.state != Fiber::State::AtBarrier) continue;
    fiber.state = Fiber::State::Ready;
    // Everything before is ordered by its epoch, so clocks start again.
    fiber.clocks.fill(0);
    fiber.clocks[fiber.lane] = 1;
  }
}

std::string Machine::place() const {
  const Index3 thread = current_->index;
  std::string place = text("kernel `%s`, block (%u, %u, %u), thread (%u, %u, %u)", name_, block_.x, block_.y, block_.z,
                           thread.x, thread.y, thread.z);
  if (current_->barrier.file != nullptr) place += ", at or after the barrier of " + text_of(current_->barrier);
  return place;
}

void Machine::find(const std::string& what, const void* code, const std::string& detail) {
  report.add(what, place() + detail, code);
}

void Machine::stop(const std::string& what, const void* code, const std::string& detail) {
  find(what, code, detail);
  stopped_ = true;
  for (;;) yield(Fiber::State::Done);
}

void* Machine::shared_array(const void* key, const char* name, std::size_t bytes, std::size_t align) {
  void* array = shared.array(key, name, bytes, align);
  if (array == nullptr) {
    stop(text("no room for %zu bytes of shared array `%s`: a block has %zu bytes for static arrays, and %zu with dynamic shared "
              "memory",
              bytes, name, SharedMemory::kStaticLimit, SharedMemory::kTotalLimit));
  }
  return array;
}

// What the headers of kernels call.

Index3 thread_index() { return machine().current().index; }
Index3 block_index() { return machine().block_index(); }
Index3 block_shape() { return machine().shape().block; }
Index3 grid_shape() { return machine().shape().grid; }
void block_barrier(Site site) { machine().barrier(site); }
std::uint64_t collective(const CollectiveCall& call) { return machine().collective(call); }
void* dynamic_shared() { return machine().shared.dynamic(); }

void* shared_array(const void* key, const char* name, std::size_t bytes, std::size_t align) {
  return machine().shared_array(key, name, bytes, align);
}

std::size_t launch(const char* name, const LaunchShape& shape, void (*body)(const void*), const void* context) {
  machine().launch(name, shape, body, context);
  return machine().report.findings().size();
}

}  // namespace kv_shim
