// What the compiler calls from kernels: they are built with `-fsanitize=thread,alignment,bounds`, but without the libraries of those
// sanitizers. Code that runs outside a launch passes unseen.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "machine.h"

namespace {

using kv_shim::Access;
using kv_shim::machine;

inline void see(const void* address, std::size_t bytes, Access access, const void* code) {
  if (machine().running()) machine().access(address, bytes, access, code);
}

// Laid out as the compiler writes them.
struct SourceLocation {
  const char* file;
  std::uint32_t line, column;
};

struct TypeDescriptor {
  std::uint16_t kind, info;
  char name[1];  // quoted
};

struct TypeMismatch {
  SourceLocation location;
  const TypeDescriptor* type;
  unsigned char log2_alignment, kind;
};

struct OutOfBounds {
  SourceLocation location;
  const TypeDescriptor* array;
  const TypeDescriptor* index;
};

std::string text_of(const SourceLocation& location) {
  return kv_shim::text_of(kv_shim::Site{location.file, static_cast<int>(location.line)});
}

}  // namespace

#define KV_SHIM_CODE __builtin_return_address(0)
#define KV_SHIM_HOOKS(N)                                                                                    \
  void __tsan_read##N(void* address) { see(address, N, Access::Read, KV_SHIM_CODE); }                       \
  void __tsan_write##N(void* address) { see(address, N, Access::Write, KV_SHIM_CODE); }                     \
  void __tsan_unaligned_read##N(void* address) { see(address, N, Access::Read, KV_SHIM_CODE); }             \
  void __tsan_unaligned_write##N(void* address) { see(address, N, Access::Write, KV_SHIM_CODE); }           \
  void __tsan_volatile_read##N(void* address) { see(address, N, Access::Read, KV_SHIM_CODE); }              \
  void __tsan_volatile_write##N(void* address) { see(address, N, Access::Write, KV_SHIM_CODE); }

extern "C" {

KV_SHIM_HOOKS(1)
KV_SHIM_HOOKS(2)
KV_SHIM_HOOKS(4)
KV_SHIM_HOOKS(8)
KV_SHIM_HOOKS(16)

void __tsan_read_range(void* address, std::size_t bytes) { see(address, bytes, Access::Read, KV_SHIM_CODE); }
void __tsan_write_range(void* address, std::size_t bytes) { see(address, bytes, Access::Write, KV_SHIM_CODE); }

// clang calls these for copies and fills.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  see(from, bytes, Access::Read, KV_SHIM_CODE);
  see(to, bytes, Access::Write, KV_SHIM_CODE);
  return std::memcpy(to, from, bytes);
}

void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  see(from, bytes, Access::Read, KV_SHIM_CODE);
  see(to, bytes, Access::Write, KV_SHIM_CODE);
  return std::memmove(to, from, bytes);
}

void* __tsan_memset(void* to, int byte, std::size_t bytes) {
  see(to, bytes, Access::Write, KV_SHIM_CODE);
  return std::memset(to, byte, bytes);
}

void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

// An access that does not have the alignment of its type.
void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, void* address) {
  if (!machine().running()) return;
  machine().stop(kv_shim::text("misaligned access to %s at %s, must be a multiple of %u bytes", data->type->name,
                               text_of(data->location).c_str(), 1u << data->log2_alignment),
                 nullptr, kv_shim::text(", address %p", address));
}

// An index beyond an array whose size the compiler knows.
void __ubsan_handle_out_of_bounds(OutOfBounds* data, void* index) {
  if (!machine().running()) return;
  machine().stop(kv_shim::text("index beyond %s at %s", data->array->name, text_of(data->location).c_str()),
                 nullptr, kv_shim::text(", index %lld", static_cast<long long>(reinterpret_cast<std::intptr_t>(index))));
}

}  // extern "C"
