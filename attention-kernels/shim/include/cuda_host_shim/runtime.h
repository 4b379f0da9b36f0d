// What the library offers to the headers of kernels. Kernels use the CUDA names of the other headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kv_shim {

struct Index3 {
  unsigned x, y, z;
};

// A place in a source file.
struct Site {
  const char* file;
  int line;
};

// Constant for the life of a thread, so that the compiler may ask once. Returned by value: a reference would make each use of
// `threadIdx.x` an access for the race detector to look at.
[[gnu::const]] Index3 thread_index();
[[gnu::const]] Index3 block_index();
[[gnu::const]] Index3 block_shape();
[[gnu::const]] Index3 grid_shape();

// Waits for all threads of the block.
void block_barrier(Site site);

// What lanes of a warp do together.
enum class Collective { Sync, Shuffle, ShuffleXor, ShuffleUp, ShuffleDown, Ballot };

struct CollectiveCall {
  Collective kind;
  unsigned mask;
  std::uint64_t value;  // what this lane gives
  int argument;         // source lane, distance or lane mask of a shuffle
  int width;            // of a shuffle's segments
  Site site;
};

// Waits for the lanes of the mask; what this lane gets.
std::uint64_t collective(const CollectiveCall& call);

// The block's static array that `key` stands for. Made when the first thread asks.
void* shared_array(const void* key, const char* name, std::size_t bytes, std::size_t align);

// The block's dynamic shared memory.
void* dynamic_shared();

// Tells the detector of an atomic access, just before it happens.
void before_atomic(const void* address, std::size_t bytes);

// A kernel by name. `call` reads its arguments from cells of 8 bytes.
struct EntryPoint {
  const char* name;
  std::size_t parameters;
  void (*call)(const std::uint64_t* cells);
};

// Adds to the table of entries.
struct EntryRegistration {
  explicit EntryRegistration(const EntryPoint& entry);
};

struct LaunchShape {
  Index3 grid, block;
  std::size_t dynamic_shared;
};

// Runs `body(context)` once in each thread of a grid. The number of findings, which `kv_shim_finding` reads.
std::size_t launch(const char* name, const LaunchShape& shape, void (*body)(const void*), const void* context);

}  // namespace kv_shim
