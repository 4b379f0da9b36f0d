// The memory that a kernel may touch: registered buffers and the block's shared arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "shadow.h"

namespace kv_shim {

class GlobalMemory {
 public:
  void add(std::uintptr_t begin, std::size_t bytes, const char* name);
  void remove(std::uintptr_t begin);
  Region* find(std::uintptr_t address);
  void forget_accesses();

 private:
  std::map<std::uintptr_t, std::unique_ptr<Region>> regions_;  // by first address
  Region* last_ = nullptr;
};

// The shared memory of the block that runs: its dynamic part, and static arrays in the order in which they were asked for. Gaps
// between them let the detector see a step past the end of one.
class SharedMemory {
 public:
  static constexpr std::size_t kStaticLimit = 48 * 1024;
  static constexpr std::size_t kTotalLimit = 227 * 1024;

  // A new launch begins, with `dynamic` bytes for each block, at most `kTotalLimit`. Forgets all arrays.
  void begin_launch(std::size_t dynamic);
  // A new block begins: everything is poisoned again.
  void begin_block();
  // The array of `key`, poisoned when it is new; null where the block has no room for it.
  void* array(const void* key, const char* name, std::size_t bytes, std::size_t align);
  void* dynamic() const;
  bool contains(std::uintptr_t address) const;
  Region* find(std::uintptr_t address);

 private:
  struct Array {
    const void* key;
    std::unique_ptr<Region> region;
    bool live;  // asked for in this block
  };

  void renew(Region& region);

  // Arrays stay where they are from block to block of a launch, so their shadow stays as well.
  std::vector<Array> arrays_;
  std::size_t used_ = 0;  // of the part behind the dynamic memory, gaps and all
  std::size_t static_bytes_ = 0, dynamic_bytes_ = 0;
  std::unique_ptr<Region> dynamic_;
};

// Whether `address` lies in what the program was loaded with, constants among it.
bool in_program_image(std::uintptr_t address);

}  // namespace kv_shim
