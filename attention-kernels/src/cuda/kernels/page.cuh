// How a head page lies in device memory. It is the engine's own cache layout with one KV head per block:
//
//   keys    [P, 1, D/x, B, x]    x = 16 bytes / bytes of an element
//   values  [P, 1, D, B]
//
// and, where a policy needs them, a position and a score for every slot, [P, B] each.
#pragma once
#include "element.cuh"

// A pinned slot's position carries this bit.
constexpr uint32_t PINNED = 0x80000000u;

template <class E>
struct Pages {
  typename E::Raw* keys;
  typename E::Raw* values;
  uint32_t head_dim;
  uint32_t block;

  __device__ __forceinline__ uint64_t base(uint32_t page) const {
    return static_cast<uint64_t>(page) * head_dim * block;
  }
  __device__ __forceinline__ uint64_t key(uint32_t page, uint32_t offset, uint32_t d) const {
    const uint32_t x = E::PER_CHUNK;
    return base(page) + (d / x * block + offset) * x + d % x;
  }
  __device__ __forceinline__ uint64_t value(uint32_t page, uint32_t offset, uint32_t d) const {
    return base(page) + static_cast<uint64_t>(d) * block + offset;
  }
  // Elements `x * chunk ..` of a key.
  __device__ __forceinline__ Chunk16 key_chunk(uint32_t page, uint32_t offset, uint32_t chunk) const {
    return *reinterpret_cast<const Chunk16*>(keys + key(page, offset, chunk * E::PER_CHUNK));
  }
  // Element `d` of the values of the tokens `x * chunk ..` of a page.
  __device__ __forceinline__ Chunk16 value_chunk(uint32_t page, uint32_t d, uint32_t chunk) const {
    return *reinterpret_cast<const Chunk16*>(values + value(page, chunk * E::PER_CHUNK, d));
  }
};

// One head of one sequence in a decode step. Written by `cuda::Step::upload`.
struct StepHead {
  // Index of its first page in the list of page numbers.
  uint32_t first_page;
  // Tokens held once the new one is in.
  uint32_t len;
  // Slot of the new token, or `LOWEST`.
  uint32_t target;
  // Newest tokens that may not be overwritten, where the target is `LOWEST`.
  uint32_t recent;
};

// The new token takes the slot with the lowest score.
constexpr uint32_t LOWEST = 0xffffffffu;
// Nothing is written.
constexpr uint32_t NO_TARGET = 0xfffffffeu;

// A token to write. Written by `cuda::write`.
struct RowWrite {
  uint32_t source;
  uint32_t page;
  uint32_t offset;
  // Position in the text, with `PINNED` where it may never go.
  uint32_t position;
};

// A token to move. Written by `cuda::copy_rows`.
struct RowCopy {
  uint32_t from_page;
  uint32_t from_offset;
  uint32_t to_page;
  uint32_t to_offset;
};

// A key to rotate. Written by `cuda::shift`.
struct RowShift {
  uint32_t page;
  uint32_t offset;
  int32_t by;
};
