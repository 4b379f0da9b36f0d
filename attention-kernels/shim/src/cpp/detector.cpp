// Looks at every access of the thread that runs.

#include "machine.h"

namespace kv_shim {
namespace {

const char* name_of(Access access) {
  switch (access) {
    case Access::Read: return "read";
    case Access::Write: return "write";
    case Access::Atomic: return "atomic access";
  }
  return "?";
}

std::string name_of(const Region& region) {
  return text("%s `%s`", region.kind() == Region::Kind::Shared ? "shared array" : "buffer", region.name().c_str());
}

std::string offset_in(const Region& region, std::uintptr_t at) {
  return text(", byte %zu of %zu", static_cast<std::size_t>(at - region.begin()), region.bytes());
}

}  // namespace

Stamp Machine::stamp(Access access) const {
  Stamp stamp;
  stamp.epoch = epoch_;
  stamp.thread = current_->linear + 1;
  stamp.atomic = access == Access::Atomic;
  stamp.clock = current_->clocks[current_->lane];
  return stamp;
}

// Whether what the stamp tells of is ordered before what the thread that runs does now.
bool Machine::is_before_now(const Stamp& stamp, const Region& region) const {
  if (!stamp.somebody() || stamp.epoch < launch_epoch_) return true;
  // Each block has its own shared memory; in global memory, nothing orders blocks.
  if (!in_this_block(stamp)) return region.kind() == Region::Kind::Shared;
  if (stamp.epoch < epoch_) return true;
  const unsigned linear = stamp.thread - 1;
  if (linear == current_->linear) return true;
  return linear / kWarp == current_->warp && current_->clocks[linear % kWarp] >= stamp.clock;
}

// Whether the same barriers order both. All other blocks count as one: what runs now is ordered with none of them.
bool Machine::same_warp(const Stamp& a, const Stamp& b) const {
  if (!in_this_block(a) || !in_this_block(b)) return in_this_block(a) == in_this_block(b);
  return (a.thread - 1) / kWarp == (b.thread - 1) / kWarp;
}

void Machine::remember_read(Cell& cell, const Region& region) {
  const Stamp now = stamp(Access::Read);
  for (Stamp& reader : cell.readers) {
    if (is_before_now(reader, region)) {
      reader = now;
      return;
    }
  }
  if (same_warp(cell.readers[0], cell.readers[1]) && !same_warp(cell.readers[0], now)) cell.readers[1] = now;
}

// What of the cell's past races with an access now, or null.
const Stamp* Machine::conflict(const Cell& cell, const Region& region, Access access) const {
  const bool both_atomic = access == Access::Atomic && cell.writer.atomic;
  if (!both_atomic && !is_before_now(cell.writer, region)) return &cell.writer;
  if (access == Access::Read) return nullptr;
  for (const Stamp& reader : cell.readers) {
    if (!is_before_now(reader, region)) return &reader;
  }
  return nullptr;
}

void Machine::report_race(const Region& region, std::uintptr_t at, const Stamp& with, bool with_write, Access access,
                          const void* code) {
  const char* other = with_write ? (with.atomic ? "an atomic access" : "a write") : "a read";
  const char* whose = in_this_block(with) ? "another thread of the block" : "another block";
  const unsigned linear = with.thread - 1;
  const std::string detail = offset_in(region, at) + text(", against the thread of linear index %u", linear);
  find(text("race: %s of %s and %s by %s, with no barrier between", name_of(access), name_of(region).c_str(), other, whose),
       code, detail);
}

void Machine::access_byte(Region& region, std::uintptr_t at, Access access, const void* code) {
  Cell& cell = region.cell(at);
  if (const Stamp* with = conflict(cell, region, access)) {
    report_race(region, at, *with, with == &cell.writer, access, code);
  }
  if (access != Access::Write && !region.initialised(at)) {
    find(text("%s of %s, which nobody has written", name_of(access), name_of(region).c_str()), code, offset_in(region, at));
  }
  if (access == Access::Read) {
    remember_read(cell, region);
    return;
  }
  cell.writer = stamp(access);
  cell.readers[0] = cell.readers[1] = Stamp();
}

void Machine::access_region(Region& region, std::uintptr_t at, std::size_t bytes, Access access, const void* code) {
  if (at + bytes > region.end()) {
    stop(text("%s of %zu bytes past the end of %s", name_of(access), bytes, name_of(region).c_str()), code,
         offset_in(region, at));
  }
  for (std::size_t i = 0; i < bytes; i++) access_byte(region, at + i, access, code);
  if (access != Access::Read) region.set_initialised(at, bytes, true);
}

void Machine::access(const void* address, std::size_t bytes, Access access, const void* code) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  if (stacks_.contains(address)) {
    const char* low = stacks_.low(current_->linear);
    const char* byte = static_cast<const char*>(address);
    if (low <= byte && byte < low + stacks_.usable()) return;
    stop(text("%s of a local variable of another thread", name_of(access)), code);
  }
  if (Region* region = shared.find(at)) return access_region(*region, at, bytes, access, code);
  if (Region* region = global.find(at)) return access_region(*region, at, bytes, access, code);
  if (shared.contains(at)) stop(text("shared %s outside every array of the block", name_of(access)), code);
  // Constants.
  if (access == Access::Read && in_program_image(at)) return;
  stop(text("%s outside every buffer", name_of(access)), code, text(", address %p", address));
}

void before_atomic(const void* address, std::size_t bytes) {
  if (machine().running()) machine().access(address, bytes, Access::Atomic, __builtin_return_address(0));
}

}  // namespace kv_shim
