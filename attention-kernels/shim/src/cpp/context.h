// Stacks, and the switch from one to another.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || !defined(__linux__)
#define KV_SHIM_UCONTEXT 1
#endif

#ifdef KV_SHIM_UCONTEXT
#include <ucontext.h>
#endif

namespace kv_shim {

// Where a flow of control stopped.
struct Context {
#ifdef KV_SHIM_UCONTEXT
  ucontext_t state;
#else
  void* stack_pointer;
#endif
};

// Makes a context that calls `start` on the stack `[low, low + bytes)`. `start` must never return.
void make_context(Context& context, char* low, std::size_t bytes, void (*start)());

// Goes on in `to`; returns when something switches back to `from`.
void switch_context(Context& from, Context& to);

// Stacks of one size, each with a page below it that must not be touched. They live as long as the process.
class Stacks {
 public:
  static constexpr std::size_t kBytes = 64 * 1024;

  // At least `count` stacks. Those that were there before may move: no fiber may be alive.
  void reserve(std::size_t count);
  // The usable part of a stack, `usable()` bytes.
  char* low(std::size_t index) const;
  std::size_t usable() const;
  bool contains(const void* address) const;

 private:
  char* memory_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace kv_shim
