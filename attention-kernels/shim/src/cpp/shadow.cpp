#include "shadow.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace kv_shim {
namespace {

template <class T>
T* zeroed(std::size_t count) {
  void* memory = std::calloc(count == 0 ? 1 : count, sizeof(T));
  if (memory == nullptr) {
    std::fprintf(stderr, "cuda-host-shim: no memory for the shadow of %zu bytes\n", count);
    std::abort();
  }
  return static_cast<T*>(memory);
}

}  // namespace

void Region::Free::operator()(void* memory) const { std::free(memory); }

Region::Region(Kind kind, std::string name, std::uintptr_t begin, std::size_t bytes)
    : kind_(kind),
      name_(std::move(name)),
      begin_(begin),
      end_(begin + bytes),
      cells_(zeroed<Cell>(bytes)),
      initialised_(zeroed<unsigned char>(bytes)) {}

void Region::set_initialised(std::uintptr_t address, std::size_t bytes, bool yes) {
  std::memset(initialised_.get() + (address - begin_), yes ? 1 : 0, bytes);
}

void Region::forget_accesses() { cells_.reset(zeroed<Cell>(bytes())); }

}  // namespace kv_shim
