// Carrying a plan out: the slots that each head keeps of a prompt, ascending. Slot `i` is position `i`.
#pragma once
#include "select.cuh"

constexpr int KEEP_THREADS = 256;
constexpr int ACROSS_THREADS = 1024;

// One verb of a plan. Written by `cuda::keep`.
struct Verb {
  uint32_t kind;
  // The head it speaks of, or `EVERY_HEAD`.
  uint32_t head;
  // Window: sinks. Top: how many. Counted: first of the counts, `[H]`. Slots: first byte of the mask, `[n]`.
  uint32_t amount;
  uint32_t recent;
};
constexpr uint32_t EVERY_HEAD = 0xffffffffu;
constexpr uint32_t VERB_WINDOW = 0;
constexpr uint32_t VERB_TOP = 1;
constexpr uint32_t VERB_COUNTED = 2;
constexpr uint32_t VERB_SLOTS = 3;

// Takes out of `mask` what is neither among the `recent` newest of `n` tokens nor among the `wanted` best of the others.
__device__ __forceinline__ void keep_best(const Search& search, uint32_t* sums, const float* scores, uint32_t n, uint32_t wanted,
                                          uint32_t recent, unsigned char* mask) {
  const uint32_t others = n - (recent < n ? recent : n);
  if (wanted >= others) return;
  Threshold threshold{0xffffffffu, 0};  // no score has this key
  if (wanted > 0) {
    threshold = best_of(search, others, wanted, [&](uint32_t i) { return key_of(scores[i]); });
  }
  uint32_t seen = 0;
  for (uint32_t first = 0; first < others; first += blockDim.x) {
    const uint32_t i = first + threadIdx.x;
    const uint32_t key = i < others ? key_of(scores[i]) : 0;
    const bool is_tie = i < others && key == threshold.key;
    const Rank rank = rank_in_block(is_tie, sums);
    const bool stays = key > threshold.key || (is_tie && seen + rank.before < threshold.ties);
    if (i < others && !stays) mask[i] = 0;
    seen += rank.all;
  }
}

// Block head. `scores` is `[H, stride]`, `masks` working memory `[H, stride]`, `slots` `[H, stride]` and `lens` `[H]` the result.
// `spans` are pinned positions, start and end. A thread has the same tokens of the mask throughout.
__device__ __forceinline__ void keep(const float* scores, const Verb* verbs, uint32_t verb_count, const uint32_t* counts,
                                     const unsigned char* given, const uint32_t* spans, uint32_t span_count, uint32_t n, uint32_t stride,
                                     unsigned char* masks, uint32_t* slots, uint32_t* lens) {
  SHARED(uint32_t, buckets, BUCKETS);
  SHARED(uint32_t, found, 2);
  SHARED(uint32_t, sums, KEEP_THREADS / WARP);
  const Search search{buckets, found};
  const uint64_t row = static_cast<uint64_t>(blockIdx.x) * stride;
  unsigned char* const mask = masks + row;
  for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) mask[i] = 1;
  for (uint32_t v = 0; v < verb_count; ++v) {
    const Verb verb = verbs[v];
    if (verb.head != EVERY_HEAD && verb.head != blockIdx.x) continue;
    if (verb.kind == VERB_TOP || verb.kind == VERB_COUNTED) {
      const uint32_t wanted = verb.kind == VERB_TOP ? verb.amount : counts[verb.amount + blockIdx.x];
      keep_best(search, sums, scores + row, n, wanted, verb.recent, mask);
      continue;
    }
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
      const bool in_window = i < verb.amount || n - i <= verb.recent;
      if (!(verb.kind == VERB_WINDOW ? in_window : given[verb.amount + i] != 0)) mask[i] = 0;
    }
  }
  uint32_t len = 0;
  for (uint32_t first = 0; first < n; first += blockDim.x) {
    const uint32_t i = first + threadIdx.x;
    bool stays = i < n && (mask[i] != 0 || i + 1 == n);
    for (uint32_t span = 0; span < span_count; ++span) {
      stays = stays || (i < n && i >= spans[2 * span] && i < spans[2 * span + 1]);
    }
    const Rank rank = rank_in_block(stays, sums);
    if (stays) slots[row + len + rank.before] = i;
    len += rank.all;
  }
  if (threadIdx.x == 0) lens[blockIdx.x] = len;
}

// One block. How many of its `others` first tokens each head keeps if each keeps its `floor` best, and then the best of all that is left
// in all heads are taken until `wanted` more are kept. Equal scores go to the lower head. `counts` is `[H]`, `limits` working memory `[H, 2]`.
__device__ __forceinline__ void across_heads(const float* scores, uint32_t heads, uint32_t others, uint32_t stride, uint32_t floor,
                                             uint32_t wanted, uint32_t* limits, uint32_t* counts) {
  SHARED(uint32_t, buckets, BUCKETS);
  SHARED(uint32_t, found, 2);
  SHARED(uint32_t, above, 1);
  SHARED(uint32_t, equal, 1);
  const Search search{buckets, found};
  const uint32_t safe = floor < others ? floor : others;
  const uint32_t rest = heads * (others - safe);
  // Of each head: the key below which nothing is safe, and how many tokens with just that key are.
  for (uint32_t head = 0; head < heads; ++head) {
    Threshold threshold{0xffffffffu, 0};
    if (safe > 0) {
      threshold = best_of(search, others, safe, [&](uint32_t i) { return key_of(scores[static_cast<uint64_t>(head) * stride + i]); });
    }
    if (threadIdx.x == 0) {
      limits[2 * head] = threshold.key;
      limits[2 * head + 1] = threshold.ties;
      counts[head] = safe;
    }
  }
  __syncthreads();
  if (wanted == 0) return;
  if (wanted >= rest) {
    for (uint32_t head = threadIdx.x; head < heads; head += blockDim.x) counts[head] = others;
    return;
  }
  // A safe token is never counted: those above the limit are passed over, and of the limit's own bucket the safe ones are taken off.
  const Threshold last = nth_largest(search, wanted, [&](int shift, uint32_t prefix) {
    for (uint32_t head = 0; head < heads; ++head) {
      const uint32_t limit = limits[2 * head], ties = limits[2 * head + 1];
      for (uint32_t i = threadIdx.x; i < others; i += blockDim.x) {
        const uint32_t key = key_of(scores[static_cast<uint64_t>(head) * stride + i]);
        if (key <= limit) count_key(search, key, shift, prefix, 1);
      }
      // Wraps around until the tokens themselves are counted.
      if (threadIdx.x == 0 && ties > 0) count_key(search, limit, shift, prefix, 0u - ties);
    }
  });
  uint32_t ties_left = last.ties;
  for (uint32_t head = 0; head < heads; ++head) {
    const uint32_t limit = limits[2 * head], ties = limits[2 * head + 1];
    if (threadIdx.x == 0) above[0] = equal[0] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < others; i += blockDim.x) {
      const uint32_t key = key_of(scores[static_cast<uint64_t>(head) * stride + i]);
      if (key <= limit && key > last.key) atomicAdd(&above[0], 1u);
      if (key <= limit && key == last.key) atomicAdd(&equal[0], 1u);
    }
    __syncthreads();
    const uint32_t more = above[0] - (limit > last.key ? ties : 0), same = equal[0] - (limit == last.key ? ties : 0);
    const uint32_t taken = same < ties_left ? same : ties_left;
    if (threadIdx.x == 0) counts[head] = safe + more + taken;
    ties_left -= taken;
    __syncthreads();
  }
}
