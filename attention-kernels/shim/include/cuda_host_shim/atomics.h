// Atomic functions, in the types that CUDA has them in. Fibers take turns, so a plain read and write is atomic here.
//
// `no_sanitize`: the access is announced as atomic, and must not reach the detector a second time as a plain one.
#pragma once

#include "runtime.h"

#define KV_SHIM_PLAIN inline __attribute__((no_sanitize("thread")))

#define KV_SHIM_ATOMIC(name, T, stored)                                \
  KV_SHIM_PLAIN T name(T* address, T value) {                          \
    ::kv_shim::before_atomic(address, sizeof(T));                      \
    const T old = *address;                                            \
    *address = (stored);                                               \
    return old;                                                        \
  }

#define KV_SHIM_ATOMIC_INTEGER(name, stored)      \
  KV_SHIM_ATOMIC(name, int, stored)               \
  KV_SHIM_ATOMIC(name, unsigned, stored)          \
  KV_SHIM_ATOMIC(name, unsigned long long, stored)

KV_SHIM_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
KV_SHIM_ATOMIC(atomicAdd, unsigned, old + value)
KV_SHIM_ATOMIC(atomicAdd, unsigned long long, old + value)
KV_SHIM_ATOMIC(atomicAdd, float, old + value)
KV_SHIM_ATOMIC(atomicAdd, double, old + value)
KV_SHIM_ATOMIC_INTEGER(atomicMax, old < value ? value : old)
KV_SHIM_ATOMIC_INTEGER(atomicMin, value < old ? value : old)
KV_SHIM_ATOMIC_INTEGER(atomicOr, old | value)
KV_SHIM_ATOMIC_INTEGER(atomicAnd, old & value)
KV_SHIM_ATOMIC_INTEGER(atomicExch, value)
KV_SHIM_ATOMIC(atomicExch, float, value)

#define KV_SHIM_ATOMIC_CAS(T)                                     \
  KV_SHIM_PLAIN T atomicCAS(T* address, T compare, T value) {     \
    ::kv_shim::before_atomic(address, sizeof(T));                 \
    const T old = *address;                                       \
    if (old == compare) *address = value;                         \
    return old;                                                   \
  }

KV_SHIM_ATOMIC_CAS(int)
KV_SHIM_ATOMIC_CAS(unsigned)
KV_SHIM_ATOMIC_CAS(unsigned long long)

#undef KV_SHIM_ATOMIC_CAS
#undef KV_SHIM_ATOMIC_INTEGER
#undef KV_SHIM_ATOMIC
#undef KV_SHIM_PLAIN
