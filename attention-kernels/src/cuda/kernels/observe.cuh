// What a policy asked to see of a prompt, reduced to one number per KV head and token.
//
// Two passes over the scores of queries and keys, each in tiles of 32 by 64: the first finds every query's highest score and the
// sum of its weights, the second adds the weights to columns. Nothing of size n * n exists, no addition is atomic, and the order
// of every addition is fixed.
#pragma once
#include "element.cuh"

constexpr int TILE_THREADS = 128;
constexpr int TILE_QUERIES = 32;
constexpr int TILE_KEYS = 64;
// Elements of D that are in shared memory at a time.
constexpr int TILE_DEPTH = 32;
// Each thread has 4 queries and 4 keys; 16 threads, half a warp, share their queries.
constexpr int THREAD_QUERIES = 4;
constexpr int THREAD_KEYS = 4;
constexpr int KEY_LANES = TILE_KEYS / THREAD_KEYS;

// One query head of a prompt and its keys.
template <class E>
struct Prompt {
  const typename E::Raw* queries;  // [tokens, D]
  const typename E::Raw* keys;     // [tokens, D]
  uint32_t tokens;
  uint32_t head_dim;
  float scale;
  float softcap;
};

// Query head `blockIdx.y` of `[H * G, rows, D]` queries and `[H, rows, D]` keys.
template <class E>
__device__ __forceinline__ Prompt<E> prompt_of_block(const typename E::Raw* queries, const typename E::Raw* keys, uint32_t rows,
                                                     uint32_t tokens, uint32_t group, uint32_t head_dim, float scale, float softcap) {
  const uint64_t per_head = static_cast<uint64_t>(rows) * head_dim;
  return Prompt<E>{queries + blockIdx.y * per_head, keys + blockIdx.y / group * per_head, tokens, head_dim, scale, softcap};
}

__device__ __forceinline__ uint32_t first_query_of_thread() { return threadIdx.x / KEY_LANES * THREAD_QUERIES; }
// Keys of a thread are `KEY_LANES` apart, so that neighbours read neighbours.
__device__ __forceinline__ uint32_t first_key_of_thread() { return threadIdx.x % KEY_LANES; }

// Loads rows `first..first + ROWS` of a matrix, elements `depth..`, zeros beyond its end.
template <class E, int ROWS>
__device__ __forceinline__ void load_tile(float* shared, const typename E::Raw* matrix, uint32_t first, uint32_t depth, uint32_t tokens,
                                          uint32_t head_dim) {
  for (uint32_t i = threadIdx.x; i < ROWS * TILE_DEPTH; i += TILE_THREADS) {
    const uint32_t row = first + i / TILE_DEPTH, d = depth + i % TILE_DEPTH;
    const bool exists = row < tokens && d < head_dim;
    shared[i / TILE_DEPTH * (TILE_DEPTH + 1) + i % TILE_DEPTH] = exists ? E::widen(matrix[static_cast<uint64_t>(row) * head_dim + d]) : 0.0f;
  }
}

// Scores of a tile, the thread's 4 by 4. All threads call it.
template <class E>
__device__ __forceinline__ void score_tile(const Prompt<E>& prompt, uint32_t first_query, uint32_t first_key,
                                           float (&scores)[THREAD_QUERIES][THREAD_KEYS]) {
  SHARED(float, query_tile, TILE_QUERIES * (TILE_DEPTH + 1));
  SHARED(float, key_tile, TILE_KEYS * (TILE_DEPTH + 1));
  const uint32_t my_query = first_query_of_thread(), my_key = first_key_of_thread();
#pragma unroll
  for (int q = 0; q < THREAD_QUERIES; ++q) {
#pragma unroll
    for (int k = 0; k < THREAD_KEYS; ++k) scores[q][k] = 0.0f;
  }
  for (uint32_t depth = 0; depth < prompt.head_dim; depth += TILE_DEPTH) {
    __syncthreads();
    load_tile<E, TILE_QUERIES>(query_tile, prompt.queries, first_query, depth, prompt.tokens, prompt.head_dim);
    load_tile<E, TILE_KEYS>(key_tile, prompt.keys, first_key, depth, prompt.tokens, prompt.head_dim);
    __syncthreads();
#pragma unroll 8
    for (int d = 0; d < TILE_DEPTH; ++d) {
      float query[THREAD_QUERIES], key[THREAD_KEYS];
#pragma unroll
      for (int q = 0; q < THREAD_QUERIES; ++q) query[q] = query_tile[(my_query + q) * (TILE_DEPTH + 1) + d];
#pragma unroll
      for (int k = 0; k < THREAD_KEYS; ++k) key[k] = key_tile[(my_key + k * KEY_LANES) * (TILE_DEPTH + 1) + d];
#pragma unroll
      for (int q = 0; q < THREAD_QUERIES; ++q) {
#pragma unroll
        for (int k = 0; k < THREAD_KEYS; ++k) scores[q][k] = fmaf(query[q], key[k], scores[q][k]);
      }
    }
  }
#pragma unroll
  for (int q = 0; q < THREAD_QUERIES; ++q) {
#pragma unroll
    for (int k = 0; k < THREAD_KEYS; ++k) scores[q][k] = score_of(scores[q][k], prompt.scale, prompt.softcap);
  }
}

// Block (tile of queries, query head). `stats` is `[H * G, tokens - first_query, 2]`: the highest score of a query over the keys that it
// can see, and one over the sum of their weights.
template <class E>
__device__ __forceinline__ void weigh_queries(const Prompt<E>& prompt, uint32_t first_query, float* stats) {
  const uint32_t tile = first_query + blockIdx.x * TILE_QUERIES;
  const uint32_t end = tile + TILE_QUERIES < prompt.tokens ? tile + TILE_QUERIES : prompt.tokens;
  float highest[THREAD_QUERIES], sum[THREAD_QUERIES];
#pragma unroll
  for (int q = 0; q < THREAD_QUERIES; ++q) {
    highest[q] = minus_infinity();
    sum[q] = 0.0f;
  }
  for (uint32_t first_key = 0; first_key < end; first_key += TILE_KEYS) {
    float scores[THREAD_QUERIES][THREAD_KEYS];
    score_tile<E>(prompt, tile, first_key, scores);
#pragma unroll
    for (int q = 0; q < THREAD_QUERIES; ++q) {
      const uint32_t query = tile + first_query_of_thread() + q;
      float top = highest[q];
#pragma unroll
      for (int k = 0; k < THREAD_KEYS; ++k) {
        const uint32_t key = first_key + first_key_of_thread() + k * KEY_LANES;
        if (key > query) scores[q][k] = minus_infinity();
        top = fmaxf(top, scores[q][k]);
      }
      if (top == minus_infinity()) continue;  // the thread has seen no key of this query yet
      float more = 0.0f;
#pragma unroll
      for (int k = 0; k < THREAD_KEYS; ++k) more += expf(scores[q][k] - top);
      sum[q] = sum[q] * expf(highest[q] - top) + more;
      highest[q] = top;
    }
  }
#pragma unroll
  for (int q = 0; q < THREAD_QUERIES; ++q) {
    float top = highest[q];
    for (int reach = KEY_LANES / 2; reach > 0; reach /= 2) top = fmaxf(top, __shfl_xor_sync(FULL_WARP, top, reach));
    float all = highest[q] == minus_infinity() ? 0.0f : sum[q] * expf(highest[q] - top);
    for (int reach = KEY_LANES / 2; reach > 0; reach /= 2) all += __shfl_xor_sync(FULL_WARP, all, reach);
    const uint32_t query = tile + first_query_of_thread() + q;
    if (first_key_of_thread() == 0 && query < prompt.tokens) {
      const uint64_t at = static_cast<uint64_t>(blockIdx.y) * (prompt.tokens - first_query) + query - first_query;
      stats[2 * at] = top;
      stats[2 * at + 1] = 1.0f / all;
    }
  }
}

// A sum that carries what was lost to rounding.
struct Carried {
  float sum;
  float lost;

  __device__ __forceinline__ void add(float number) {
    const float corrected = number - lost;
    const float next = sum + corrected;
    lost = (next - sum) - corrected;
    sum = next;
  }
};

// Block (tile of keys, query head). `columns` is `[H * G, before]`: the weights of every query from `first_query` on that can see the token,
// as mean, sum or maximum.
template <class E>
__device__ __forceinline__ void fold_queries(const Prompt<E>& prompt, uint32_t first_query, uint32_t before, uint32_t reduce,
                                             const float* stats, float* columns) {
  SHARED(float, partial, TILE_QUERIES / THREAD_QUERIES * TILE_KEYS);
  const uint32_t tile = blockIdx.x * TILE_KEYS;
  stats += 2 * static_cast<uint64_t>(blockIdx.y) * (prompt.tokens - first_query);
  Carried folded[THREAD_KEYS];
#pragma unroll
  for (int k = 0; k < THREAD_KEYS; ++k) folded[k] = Carried{0.0f, 0.0f};
  const uint32_t start = tile > first_query ? tile : first_query;
  for (uint32_t query_tile = start; query_tile < prompt.tokens; query_tile += TILE_QUERIES) {
    float scores[THREAD_QUERIES][THREAD_KEYS];
    score_tile<E>(prompt, query_tile, tile, scores);
#pragma unroll
    for (int q = 0; q < THREAD_QUERIES; ++q) {
      const uint32_t query = query_tile + first_query_of_thread() + q;
      if (query >= prompt.tokens) continue;
      const float highest = stats[2 * (query - first_query)], share = stats[2 * (query - first_query) + 1];
#pragma unroll
      for (int k = 0; k < THREAD_KEYS; ++k) {
        const uint32_t key = tile + first_key_of_thread() + k * KEY_LANES;
        if (key > query) continue;
        const float weight = expf(scores[q][k] - highest) * share;
        if (reduce == 2) {
          folded[k].sum = fmaxf(folded[k].sum, weight);
        } else {
          folded[k].add(weight);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < THREAD_KEYS; ++k) {
    partial[threadIdx.x / KEY_LANES * TILE_KEYS + first_key_of_thread() + k * KEY_LANES] = folded[k].sum;
  }
  __syncthreads();
  const uint32_t key = tile + threadIdx.x;
  if (threadIdx.x >= TILE_KEYS || key >= before) return;
  Carried all{0.0f, 0.0f};
  for (int part = 0; part < TILE_QUERIES / THREAD_QUERIES; ++part) {
    const float number = partial[part * TILE_KEYS + threadIdx.x];
    if (reduce == 2) {
      all.sum = fmaxf(all.sum, number);
    } else {
      all.add(number);
    }
  }
  const uint32_t seers = prompt.tokens - (key > first_query ? key : first_query);
  columns[static_cast<uint64_t>(blockIdx.y) * before + key] = reduce == 0 ? all.sum / static_cast<float>(seers) : all.sum;
}

// From columns of every query head to one row per KV head: group and pool, in either order.
struct Reducer {
  const float* columns;  // [G, before] of one KV head
  uint32_t before;
  uint32_t group;
  uint32_t group_reduce;  // 0 mean, 1 sum, 2 maximum
  uint32_t pool;          // 0 none, 1 average, 2 maximum
  uint32_t reach;         // neighbours on either side
  float width;
  uint32_t pool_first;

  __device__ __forceinline__ float over_group(uint32_t token) const {
    Carried all{0.0f, 0.0f};
    for (uint32_t g = 0; g < group; ++g) fold_group(all, columns[static_cast<uint64_t>(g) * before + token]);
    return of_group(all);
  }
  __device__ __forceinline__ void fold_group(Carried& all, float number) const {
    if (group_reduce == 2) {
      all.sum = fmaxf(all.sum, number);
    } else {
      all.add(number);
    }
  }
  __device__ __forceinline__ float of_group(const Carried& all) const {
    return group_reduce == 0 ? all.sum / static_cast<float>(group) : all.sum;
  }
  // `row(token)` and its neighbours.
  template <class Row>
  __device__ __forceinline__ float pooled(uint32_t token, const Row& row) const {
    if (pool == 0) return row(token);
    const uint32_t first = token > reach ? token - reach : 0;
    const uint32_t end = before - token > reach ? token + reach + 1 : before;
    Carried all{0.0f, 0.0f};
    for (uint32_t other = first; other < end; ++other) {
      if (pool == 2) {
        all.sum = fmaxf(all.sum, row(other));
      } else {
        all.add(row(other));
      }
    }
    return pool == 1 ? all.sum / width : all.sum;
  }
  __device__ __forceinline__ float score(uint32_t token) const {
    if (pool_first == 0) {
      return pooled(token, [&](uint32_t other) { return over_group(other); });
    }
    Carried all{0.0f, 0.0f};
    for (uint32_t g = 0; g < group; ++g) {
      const float* const row = columns + static_cast<uint64_t>(g) * before;
      fold_group(all, pooled(token, [&](uint32_t other) { return row[other]; }));
    }
    return of_group(all);
  }
};

constexpr int REDUCE_THREADS = 128;

// Block (tokens, KV head). `out` is `[H, stride]`; tokens from `before` on score positive infinity.
__device__ __forceinline__ void reduce_heads(Reducer reducer, float* out, uint32_t tokens, uint32_t stride) {
  const uint32_t token = blockIdx.x * REDUCE_THREADS + threadIdx.x;
  if (token >= tokens) return;
  reducer.columns += static_cast<uint64_t>(blockIdx.y) * reducer.group * reducer.before;
  out[static_cast<uint64_t>(blockIdx.y) * stride + token] = token < reducer.before ? reducer.score(token) : __uint_as_float(0x7f800000u);
}

// A warp per key of `[H, rows, D]`: its Euclidean norm, negated, into `[H, stride]`.
template <class E>
__device__ __forceinline__ void key_norms(const typename E::Raw* keys, float* out, uint32_t rows, uint32_t tokens, uint32_t head_dim,
                                          uint32_t stride) {
  const uint32_t token = (blockIdx.x * REDUCE_THREADS + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
  if (token >= tokens) return;
  const typename E::Raw* const key = keys + (static_cast<uint64_t>(blockIdx.y) * rows + token) * head_dim;
  float square = 0.0f;
  for (uint32_t d = lane; d < head_dim; d += WARP) {
    const float number = E::widen(key[d]);
    square = fmaf(number, number, square);
  }
  square = warp_sum(square);
  if (lane == 0) out[static_cast<uint64_t>(blockIdx.y) * stride + token] = -sqrtf(square);
}
