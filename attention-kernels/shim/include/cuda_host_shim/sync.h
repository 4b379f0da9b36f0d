// Barriers and the collectives of a warp.
//
// As in CUDA, only barriers order accesses to memory: a shuffle or a vote hands on a value and nothing else.
#pragma once

#include <cstring>

#include "runtime.h"

// The call's own place, as default arguments: a return address would tell copies of one call apart that the compiler made.
#define KV_SHIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(KV_SHIM_HERE) { kv_shim::block_barrier({file, line}); }

inline void __syncwarp(unsigned mask = 0xffffffffu, KV_SHIM_HERE) {
  kv_shim::collective({kv_shim::Collective::Sync, mask, 0, 0, 32, {file, line}});
}

// Fences order nothing that the detector knows of: a block that reads what another one wrote is always reported.
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace kv_shim {

template <class T>
inline T shuffle(Collective kind, unsigned mask, T value, int argument, int width, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles values of 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = collective({kind, mask, bits, argument, width, site});
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace kv_shim

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, KV_SHIM_HERE) {
  return kv_shim::shuffle(kv_shim::Collective::Shuffle, mask, value, lane, width, {file, line});
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, KV_SHIM_HERE) {
  return kv_shim::shuffle(kv_shim::Collective::ShuffleXor, mask, value, lanes, width, {file, line});
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, KV_SHIM_HERE) {
  return kv_shim::shuffle(kv_shim::Collective::ShuffleUp, mask, value, static_cast<int>(by), width, {file, line});
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, KV_SHIM_HERE) {
  return kv_shim::shuffle(kv_shim::Collective::ShuffleDown, mask, value, static_cast<int>(by), width, {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, KV_SHIM_HERE) {
  const std::uint64_t vote = predicate != 0;
  return static_cast<unsigned>(kv_shim::collective({kv_shim::Collective::Ballot, mask, vote, 0, 32, {file, line}}));
}

inline int __any_sync(unsigned mask, int predicate, KV_SHIM_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}

// No lane of the mask votes against; lanes that left the kernel do not vote.
inline int __all_sync(unsigned mask, int predicate, KV_SHIM_HERE) {
  return __ballot_sync(mask, predicate == 0, file, line) == 0;
}

#undef KV_SHIM_HERE
