// `KV_ENTRY(name)` at file scope makes the kernel `name` one that a host can launch by its name.
//
// Arguments come in cells of 8 bytes, one for each parameter, the value in the cell's first bytes.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "runtime.h"

namespace kv_shim {

template <class T>
inline T read_cell(const std::uint64_t* cell) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t), "a parameter of an entry must fit a cell of 8 bytes");
  static_assert(std::is_trivially_copyable<T>::value, "a parameter of an entry must be trivially copyable");
  T value;
  std::memcpy(&value, cell, sizeof(T));
  return value;
}

template <class... Parameters, std::size_t... Places>
inline void call_with_cells(void (*kernel)(Parameters...), const std::uint64_t* cells, std::index_sequence<Places...>) {
  (void)cells;
  kernel(read_cell<std::remove_cv_t<Parameters>>(cells + Places)...);
}

template <class... Parameters>
constexpr std::size_t parameter_count(void (*)(Parameters...)) {
  return sizeof...(Parameters);
}

template <auto Kernel>
struct Entry;

template <class... Parameters, void (*Kernel)(Parameters...)>
struct Entry<Kernel> {
  static void call(const std::uint64_t* cells) {
    call_with_cells(Kernel, cells, std::index_sequence_for<Parameters...>());
  }
};

}  // namespace kv_shim

#define KV_ENTRY(name)                                              \
  static const ::kv_shim::EntryRegistration name##_kv_registration( \
      {#name, ::kv_shim::parameter_count(&name), &::kv_shim::Entry<&name>::call});
