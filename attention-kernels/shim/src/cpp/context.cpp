#include "context.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifdef KV_SHIM_UCONTEXT

namespace kv_shim {

void make_context(Context& context, char* low, std::size_t bytes, void (*start)()) {
  getcontext(&context.state);
  context.state.uc_stack.ss_sp = low;
  context.state.uc_stack.ss_size = bytes;
  context.state.uc_link = nullptr;
  makecontext(&context.state, start, 0);
}

void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

}  // namespace kv_shim

#else

// Saves the registers that a called function must keep, exchanges the stacks and restores. swapcontext would also set the signal
// mask, two system calls for each switch.
extern "C" void kv_shim_switch(void** save, void* load);
asm(R"(
.text
.globl kv_shim_switch
.hidden kv_shim_switch
.type kv_shim_switch, @function
kv_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size kv_shim_switch, . - kv_shim_switch
)");

namespace kv_shim {

void make_context(Context& context, char* low, std::size_t bytes, void (*start)()) {
  constexpr int kSavedRegisters = 6;
  const std::uintptr_t top = (reinterpret_cast<std::uintptr_t>(low) + bytes) & ~std::uintptr_t{15};
  void** slot = reinterpret_cast<void**>(top);
  // `start` finds the stack as after a call: a return address, here none, 8 bytes below a multiple of 16.
  *--slot = nullptr;
  *--slot = reinterpret_cast<void*>(start);
  for (int i = 0; i < kSavedRegisters; i++) *--slot = nullptr;
  context.stack_pointer = slot;
}

void switch_context(Context& from, Context& to) { kv_shim_switch(&from.stack_pointer, to.stack_pointer); }

}  // namespace kv_shim

#endif

namespace kv_shim {
namespace {

std::size_t guard_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::abort();
}

}  // namespace

void Stacks::reserve(std::size_t count) {
  if (count <= count_) return;
  if (memory_ != nullptr) munmap(memory_, count_ * kBytes);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) fail("cuda-host-shim: no memory for the stacks of a block");
  memory_ = static_cast<char*>(memory);
  count_ = count;
  for (std::size_t i = 0; i < count; i++) {
    if (mprotect(memory_ + i * kBytes, guard_bytes(), PROT_NONE) != 0) fail("cuda-host-shim: no guard page");
  }
}

char* Stacks::low(std::size_t index) const { return memory_ + index * kBytes + guard_bytes(); }

std::size_t Stacks::usable() const { return kBytes - guard_bytes(); }

bool Stacks::contains(const void* address) const {
  const char* at = static_cast<const char*>(address);
  return memory_ <= at && at < memory_ + count_ * kBytes;
}

}  // namespace kv_shim
