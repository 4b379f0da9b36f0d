// The functions that `src/ffi.rs` declares.

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "machine.h"

namespace kv_shim {
namespace {

constexpr std::size_t kMaxParameters = 128;

// Filled by constructors of other files, so made when first asked for.
std::vector<EntryPoint>& entries() {
  static std::vector<EntryPoint> table;
  return table;
}

// Arguments lie in the program's image, where kernels may read.
std::uint64_t cells[kMaxParameters];

void call_entry(const void* entry) { static_cast<const EntryPoint*>(entry)->call(cells); }

Index3 index3(const std::uint32_t* numbers) { return {numbers[0], numbers[1], numbers[2]}; }

}  // namespace

EntryRegistration::EntryRegistration(const EntryPoint& entry) { entries().push_back(entry); }

}  // namespace kv_shim

using namespace kv_shim;

extern "C" {

std::size_t kv_shim_entry_count() { return entries().size(); }

const char* kv_shim_entry_name(std::size_t index) { return entries()[index].name; }

std::size_t kv_shim_entry_parameters(std::size_t index) { return entries()[index].parameters; }

void kv_shim_set_order(std::uint32_t order, std::uint64_t seed) { machine().set_order(static_cast<Order>(order), seed); }

void kv_shim_register(const void* memory, std::size_t bytes, const char* name) {
  machine().global.add(reinterpret_cast<std::uintptr_t>(memory), bytes, name);
}

void kv_shim_unregister(const void* memory) { machine().global.remove(reinterpret_cast<std::uintptr_t>(memory)); }

void kv_shim_set_initialised(const void* memory, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(memory);
  if (Region* region = machine().global.find(at)) region->set_initialised(at, bytes, true);
}

std::size_t kv_shim_max_parameters() { return kMaxParameters; }

std::size_t kv_shim_max_dynamic_shared() { return SharedMemory::kTotalLimit; }

std::size_t kv_shim_launch(std::size_t entry, const std::uint32_t* grid, const std::uint32_t* block, std::size_t dynamic_shared,
                           const std::uint64_t* arguments) {
  const EntryPoint& point = entries()[entry];
  std::copy_n(arguments, std::min(point.parameters, kMaxParameters), cells);
  return launch(point.name, {index3(grid), index3(block), dynamic_shared}, call_entry, &point);
}

const char* kv_shim_finding(std::size_t index) { return machine().report.findings()[index].text.c_str(); }

// Where in its file the code of a finding lies, for `addr2line`; 0 where that is not known.
std::uintptr_t kv_shim_finding_code(std::size_t index) {
  const void* code = machine().report.findings()[index].code;
  Dl_info object;
  if (code == nullptr || dladdr(code, &object) == 0) return 0;
  // A return address: the call is before it.
  return reinterpret_cast<std::uintptr_t>(code) - reinterpret_cast<std::uintptr_t>(object.dli_fbase) - 1;
}

}  // extern "C"
