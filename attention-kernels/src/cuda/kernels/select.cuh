// Choosing the best by the one rule for ties: the larger score first, NaN as minus infinity, then the lower index.
//
// A score becomes a 32-bit key of the same order. The k-th largest key is found by its bytes, highest first: a histogram of
// a byte over the keys that share the bytes found so far, four times. Everything is counted in integers, so the result does
// not depend on the order in which threads run.
#pragma once
#include "platform.cuh"

constexpr int BUCKETS = 256;

__device__ __forceinline__ uint32_t key_of(float score) {
  uint32_t bits = __float_as_uint(score);
  if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0xff800000u;  // NaN
  if (bits == 0x80000000u) bits = 0;                           // -0.0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// What lies above a threshold, and how many keys equal to it are taken.
struct Threshold {
  uint32_t key;
  uint32_t ties;
};

// Shared memory of one search. All threads of the block take part in every search.
struct Search {
  uint32_t* buckets;  // [BUCKETS]
  uint32_t* found;    // [2]: the byte, and how many are still wanted
};

// Of the buckets, the one that holds the `wanted`-th key from above: its byte, and how many of its keys are wanted.
__device__ __forceinline__ void find_bucket(const Search& search, uint32_t wanted) {
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t left = wanted;
    int bucket = BUCKETS - 1;
    while (bucket > 0 && search.buckets[bucket] < left) left -= search.buckets[bucket--];
    search.found[0] = static_cast<uint32_t>(bucket);
    search.found[1] = left;
  }
  __syncthreads();
}

// The `wanted`-th largest of the keys that `count` counts. `count(shift, prefix)` adds, for every key whose bytes above the one at
// `shift` are `prefix`, one to the bucket of that byte. `wanted` is at least 1 and at most the number of keys.
template <class Count>
__device__ __forceinline__ Threshold nth_largest(const Search& search, uint32_t wanted, const Count& count) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int bucket = threadIdx.x; bucket < BUCKETS; bucket += blockDim.x) search.buckets[bucket] = 0;
    __syncthreads();
    count(shift, prefix);
    find_bucket(search, wanted);
    prefix = prefix << 8 | search.found[0];
    wanted = search.found[1];
  }
  return Threshold{prefix, wanted};
}

__device__ __forceinline__ bool shares_prefix(uint32_t key, int shift, uint32_t prefix) {
  return shift == 24 || key >> (shift + 8) == prefix;
}

__device__ __forceinline__ void count_key(const Search& search, uint32_t key, int shift, uint32_t prefix, uint32_t times) {
  if (shares_prefix(key, shift, prefix)) atomicAdd(&search.buckets[key >> shift & (BUCKETS - 1)], times);
}

// The threshold of the `wanted` best of `keys(0..len)`.
template <class Keys>
__device__ __forceinline__ Threshold best_of(const Search& search, uint32_t len, uint32_t wanted, const Keys& keys) {
  return nth_largest(search, wanted, [&](int shift, uint32_t prefix) {
    for (uint32_t i = threadIdx.x; i < len; i += blockDim.x) count_key(search, keys(i), shift, prefix, 1);
  });
}

// How many of the threads before this one, and of all, say yes. `sums` is shared, one number per warp. All threads call it.
struct Rank {
  uint32_t before;
  uint32_t all;
};

__device__ __forceinline__ Rank rank_in_block(bool yes, uint32_t* sums) {
  const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const uint32_t votes = __ballot_sync(FULL_WARP, yes);
  if (lane == 0) sums[warp] = static_cast<uint32_t>(__popc(votes));
  __syncthreads();
  Rank rank{static_cast<uint32_t>(__popc(votes & ((1u << lane) - 1))), 0};
  for (uint32_t other = 0; other < blockDim.x / WARP; ++other) {
    if (other < warp) rank.before += sums[other];
    rank.all += sums[other];
  }
  __syncthreads();
  return rank;
}
