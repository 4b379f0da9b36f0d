// What the race detector remembers of memory.
//
// Time is cut twice. An *epoch* is what lies between two barriers of a block; epochs are numbered through all blocks and launches,
// so an epoch tells its block and its launch too. Within an epoch, lanes of one warp are ordered by `__syncwarp` alone: each lane
// counts its own in a clock, and learns those of the lanes that it meets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace kv_shim {

// Who did something, and when. All zero: nobody.
struct Stamp {
  static constexpr std::uint32_t kMaxClock = (1u << 20) - 1;

  std::uint32_t epoch = 0;
  std::uint32_t thread : 11;  // 1 is the first thread of the block
  std::uint32_t atomic : 1;
  std::uint32_t clock : 20;

  Stamp() : thread(0), atomic(0), clock(0) {}
  bool somebody() const { return thread != 0; }
};

// One byte's last write, and two of its reads since. Two are enough: what matters of readers is whether one of them is not ordered
// before a writer, and readers of different warps never both are. Only readers of one warp that synchronised in parts can hide
// behind each other.
struct Cell {
  Stamp writer;
  Stamp readers[2];
};

// A stretch of memory that kernels may use.
class Region {
 public:
  enum class Kind { Global, Shared };

  Region(Kind kind, std::string name, std::uintptr_t begin, std::size_t bytes);

  bool contains(std::uintptr_t address) const { return begin_ <= address && address < end_; }
  Kind kind() const { return kind_; }
  const std::string& name() const { return name_; }
  std::uintptr_t begin() const { return begin_; }
  std::uintptr_t end() const { return end_; }
  std::size_t bytes() const { return end_ - begin_; }
  Cell& cell(std::uintptr_t address) { return cells_.get()[address - begin_]; }
  bool initialised(std::uintptr_t address) const { return initialised_.get()[address - begin_] != 0; }
  void set_initialised(std::uintptr_t address, std::size_t bytes, bool yes);
  // Nobody has been here. What is initialised stays so.
  void forget_accesses();

 private:
  struct Free {
    void operator()(void* memory) const;
  };

  Kind kind_;
  std::string name_;
  std::uintptr_t begin_, end_;
  // From calloc, so that what is never accessed costs no memory.
  std::unique_ptr<Cell, Free> cells_;
  std::unique_ptr<unsigned char, Free> initialised_;
};

}  // namespace kv_shim
