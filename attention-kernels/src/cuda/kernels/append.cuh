// One decode step's new tokens: where they go, and their rows. A block serves one head of one sequence.
#pragma once
#include "rows.cuh"
#include "select.cuh"

constexpr int APPEND_THREADS = 128;

// Slots of one head, with what is kept beside them.
struct HeadSlots {
  const uint32_t* table;
  const uint32_t* positions;
  const float* scores;
  uint32_t block;

  __device__ __forceinline__ uint64_t at(uint32_t slot) const {
    return static_cast<uint64_t>(table[slot / block]) * block + slot % block;
  }
  __device__ __forceinline__ uint32_t position(uint32_t slot) const { return positions[at(slot)]; }
};

// Of two candidates for eviction: the lower score, and of equal scores the later position.
struct Victim {
  uint32_t key;
  uint32_t position;
  uint32_t slot;

  __device__ __forceinline__ bool goes_before(const Victim& other) const {
    if (slot == LOWEST) return false;
    if (other.slot == LOWEST) return true;
    return key != other.key ? key < other.key : position > other.position;
  }
};

__device__ __forceinline__ Victim worse_of_warp(Victim mine) {
  for (int reach = WARP / 2; reach > 0; reach /= 2) {
    const Victim other{__shfl_xor_sync(FULL_WARP, mine.key, reach), __shfl_xor_sync(FULL_WARP, mine.position, reach),
                       __shfl_xor_sync(FULL_WARP, mine.slot, reach)};
    if (other.goes_before(mine)) mine = other;
  }
  return mine;
}

// The slot with the lowest score that is neither pinned nor among the `recent` newest of the `len` tokens held.
__device__ __forceinline__ uint32_t lowest_slot(const HeadSlots& head, uint32_t len, uint32_t recent) {
  SHARED(uint32_t, buckets, BUCKETS);
  SHARED(uint32_t, found, 2);
  SHARED(Victim, victims, APPEND_THREADS / WARP);
  uint32_t first_recent = PINNED;  // beyond every position
  if (recent > 0) {
    const Search search{buckets, found};
    const uint32_t wanted = recent < len ? recent : len;
    first_recent = best_of(search, len, wanted, [&](uint32_t slot) { return head.position(slot) & ~PINNED; }).key;
  }
  Victim mine{0, 0, LOWEST};
  for (uint32_t slot = threadIdx.x; slot < len; slot += APPEND_THREADS) {
    const uint32_t position = head.position(slot);
    if ((position & PINNED) != 0 || position >= first_recent) continue;
    const Victim candidate{key_of(head.scores[head.at(slot)]), position, slot};
    if (candidate.goes_before(mine)) mine = candidate;
  }
  mine = worse_of_warp(mine);
  if (threadIdx.x % WARP == 0) victims[threadIdx.x / WARP] = mine;
  __syncthreads();
  mine = victims[0];
  for (int warp = 1; warp < APPEND_THREADS / WARP; ++warp) {
    if (victims[warp].goes_before(mine)) mine = victims[warp];
  }
  return mine.slot;
}

// Writes the new token of head `blockIdx.x` into its slot: row `first_row` of the head's `row_stride` rows of `keys` and `values`. `new_positions` is
// `[S]`, for `per_sequence` heads each.
template <class E>
__device__ __forceinline__ void append(const Pages<E>& pages, uint32_t* positions, float* scores, const typename E::Raw* keys,
                                       const typename E::Raw* values, const StepHead* heads, const uint32_t* page_list,
                                       const uint32_t* new_positions, uint32_t per_sequence, uint32_t row_stride,
                                       uint32_t first_row) {
  const StepHead head = heads[blockIdx.x];
  if (head.target == NO_TARGET) return;
  const uint32_t* const table = page_list + head.first_page;
  uint32_t slot = head.target;
  if (slot == LOWEST) {
    slot = lowest_slot(HeadSlots{table, positions, scores, pages.block}, head.len, head.recent);
  }
  const uint32_t page = table[slot / pages.block], offset = slot % pages.block;
  const uint64_t source = static_cast<uint64_t>(blockIdx.x) * row_stride + first_row;
  put_row<E>(pages, page, offset, keys, values, source, threadIdx.x, APPEND_THREADS);
  const uint64_t at = static_cast<uint64_t>(page) * pages.block + offset;
  if (threadIdx.x == 0 && positions != nullptr) positions[at] = new_positions[blockIdx.x / per_sequence];
  if (threadIdx.x == 0 && scores != nullptr) scores[at] = 0.0f;
}
