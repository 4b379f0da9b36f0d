// What lanes of a warp do together.

#include <algorithm>

#include "machine.h"

namespace kv_shim {
namespace {

const char* name_of(Collective kind) {
  switch (kind) {
    case Collective::Sync: return "__syncwarp";
    case Collective::Shuffle: return "__shfl_sync";
    case Collective::ShuffleXor: return "__shfl_xor_sync";
    case Collective::ShuffleUp: return "__shfl_up_sync";
    case Collective::ShuffleDown: return "__shfl_down_sync";
    case Collective::Ballot: return "a vote";
  }
  return "?";
}

// The call and where it stands.
std::string text_of(const CollectiveCall& call) {
  return text("%s of %s", name_of(call.kind), kv_shim::text_of(call.site).c_str());
}

// The lane that a shuffle reads: inside the lane's segment of `width` lanes, or the lane itself.
unsigned source_lane(const CollectiveCall& call, unsigned lane) {
  const int own = static_cast<int>(lane), width = call.width;
  const int argument = call.argument & 31;  // the hardware looks at 5 bits
  const int begin = own & ~(width - 1), end = begin + width;
  switch (call.kind) {
    case Collective::Shuffle: return static_cast<unsigned>(begin + (argument & (width - 1)));
    case Collective::ShuffleXor: {
      // A lane of an earlier segment may be read, one of a later segment not.
      const int source = own ^ argument;
      return static_cast<unsigned>(source < end ? source : own);
    }
    case Collective::ShuffleUp: return static_cast<unsigned>(own - argument >= begin ? own - argument : own);
    case Collective::ShuffleDown: return static_cast<unsigned>(own + argument < end ? own + argument : own);
    default: return lane;
  }
}

bool has(unsigned lanes, unsigned lane) { return (lanes >> lane & 1u) != 0; }

}  // namespace

unsigned Machine::live_lanes(unsigned warp) const {
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < kWarp && warp * kWarp + lane < fibers_.size(); lane++) {
    if (fibers_[warp * kWarp + lane].state != Fiber::State::Done) lanes |= 1u << lane;
  }
  return lanes;
}

std::uint64_t Machine::collective(const CollectiveCall& call) {
  Fiber& fiber = *current_;
  fiber.call = call;
  if (!has(call.mask, fiber.lane)) {
    stop(text("%s: its mask %08x leaves out the lane that calls", text_of(call).c_str(), call.mask));
  }
  if (call.width < 1 || call.width > 32 || (call.width & (call.width - 1)) != 0) {
    stop(text("%s: a width of %d, must be 1, 2, 4, 8, 16 or 32", text_of(call).c_str(), call.width));
  }
  fiber.state = Fiber::State::InCollective;
  complete_if_all_are_here(fiber.warp, call.mask);
  if (fiber.state == Fiber::State::InCollective) yield(Fiber::State::InCollective);
  return fiber.result;
}

// Lanes that left the kernel, and lanes that the block is too small for, are not waited for.
void Machine::complete_if_all_are_here(unsigned warp, unsigned mask) {
  const unsigned lanes = mask & live_lanes(warp);
  Fiber* first = &fibers_[warp * kWarp];
  const Fiber* one = nullptr;
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (!has(lanes, lane)) continue;
    const Fiber& fiber = first[lane];
    if (fiber.state != Fiber::State::InCollective || fiber.call.mask != mask) return;
    if (one == nullptr) one = &fiber;
    // `__syncwarp` may stand in several places of a program; a shuffle needs all lanes in one.
    const bool same_place = same_site(one->call.site, fiber.call.site) || fiber.call.kind == Collective::Sync;
    if (one->call.kind != fiber.call.kind || !same_place) {
      return find("lanes of one warp meet in different collectives: " + text_of(one->call) + " and " + text_of(fiber.call));
    }
  }
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (has(lanes, lane)) first[lane].result = result_of(first[lane]);
  }
  if (one != nullptr && one->call.kind == Collective::Sync) join_clocks(warp, lanes);
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (has(lanes, lane)) first[lane].state = Fiber::State::Ready;
  }
}

// A lane left the kernel: perhaps others waited for nobody else.
void Machine::complete_collectives_without(const Fiber& gone) {
  const unsigned begin = gone.warp * kWarp;
  for (unsigned i = begin; i < begin + kWarp && i < fibers_.size(); i++) {
    const Fiber& fiber = fibers_[i];
    if (fiber.state == Fiber::State::InCollective && has(fiber.call.mask, gone.lane)) {
      complete_if_all_are_here(gone.warp, fiber.call.mask);
    }
  }
}

std::uint64_t Machine::result_of(const Fiber& fiber) {
  const Fiber* first = &fibers_[fiber.warp * kWarp];
  const unsigned lanes = fiber.call.mask & live_lanes(fiber.warp);
  if (fiber.call.kind == Collective::Sync) return 0;
  if (fiber.call.kind == Collective::Ballot) {
    std::uint64_t votes = 0;
    for (unsigned lane = 0; lane < kWarp; lane++) {
      if (has(lanes, lane) && first[lane].call.value != 0) votes |= std::uint64_t{1} << lane;
    }
    return votes;
  }
  const unsigned source = source_lane(fiber.call, fiber.lane);
  if (has(lanes, source)) return first[source].call.value;
  find(text("%s reads lane %u, which is not in mask %08x or left the kernel", text_of(fiber.call).c_str(), source,
            fiber.call.mask));
  return ~std::uint64_t{0};  // a NaN in every float type
}

// Each lane learns what the others know, and starts a new interval.
void Machine::join_clocks(unsigned warp, unsigned lanes) {
  Fiber* first = &fibers_[warp * kWarp];
  std::array<std::uint32_t, kWarp> all = {};
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (!has(lanes, lane)) continue;
    for (unsigned other = 0; other < kWarp; other++) all[other] = std::max(all[other], first[lane].clocks[other]);
  }
  for (unsigned lane = 0; lane < kWarp; lane++) {
    if (!has(lanes, lane)) continue;
    first[lane].clocks = all;
    first[lane].clocks[lane]++;
  }
  if (*std::max_element(all.begin(), all.end()) + 1 >= Stamp::kMaxClock) {
    find(text("more than %u calls of __syncwarp between two barriers of the block: the race detector cannot tell them apart",
              Stamp::kMaxClock));
    stopped_ = true;
  }
}

// Nobody can run, and somebody is in a collective.
void Machine::report_deadlock() {
  for (Fiber& fiber : fibers_) {
    if (fiber.state != Fiber::State::InCollective) continue;
    current_ = &fiber;
    find(text("deadlock: warp %u waits for ever: %s", fiber.warp, waits_of(fiber.warp).c_str()));
    stopped_ = true;
    return;
  }
}

// Which lanes of a warp wait where.
std::string Machine::waits_of(unsigned warp) const {
  std::string waits;
  unsigned told = 0;
  const unsigned begin = warp * kWarp;
  for (unsigned lane = 0; lane < kWarp && begin + lane < fibers_.size(); lane++) {
    const Fiber& fiber = fibers_[begin + lane];
    if (has(told, lane) || fiber.state == Fiber::State::Done) continue;
    const bool at_barrier = fiber.state == Fiber::State::AtBarrier;
    const std::string where = at_barrier ? "the barrier of " + kv_shim::text_of(fiber.barrier)
                                         : text("%s (mask %08x)", text_of(fiber.call).c_str(), fiber.call.mask);
    unsigned lanes = 0;
    for (unsigned other = lane; other < kWarp && begin + other < fibers_.size(); other++) {
      const Fiber& same = fibers_[begin + other];
      const bool same_call = same.call.mask == fiber.call.mask && same.call.kind == fiber.call.kind &&
                             same_site(same.call.site, fiber.call.site);
      const bool together = at_barrier ? same_site(same.barrier, fiber.barrier) : same_call;
      if (same.state == fiber.state && together) lanes |= 1u << other;
    }
    told |= lanes;
    waits += text("%slanes %08x in %s", waits.empty() ? "" : ", ", lanes, where.c_str());
  }
  return waits;
}

}  // namespace kv_shim
