// Decode attention. A block serves one chunk of one head's tokens, for all query heads of its group: it reads every key and
// value once for up to GT of them. A second kernel puts the chunks together and reduces the attention row.
#pragma once
#include "page.cuh"

constexpr int ATTEND_THREADS = 128;
constexpr int ATTEND_WARPS = ATTEND_THREADS / WARP;
// Blocks that a multiprocessor should hold at once: leaves each thread registers enough to spill none.
constexpr int MIN_ATTEND_BLOCKS = 5;
// Tokens of a chunk: a multiple of every `PER_CHUNK`.
constexpr int CHUNK = 256;
constexpr int MAX_HEAD_DIM = 256;
constexpr int MAX_GROUP = 128;

// What all query heads of a block share.
template <class E>
struct Work {
  Pages<E> pages;
  const uint32_t* table;
  // First token of the chunk, and how many there are.
  uint32_t first;
  uint32_t len;
};

// Loads the queries `[GT, D]` of a tile, zeros beyond `live`.
template <class E, int GT>
__device__ __forceinline__ void load_queries(float* shared, const typename E::Raw* queries, uint32_t live, uint32_t head_dim) {
  for (uint32_t i = threadIdx.x; i < GT * head_dim; i += ATTEND_THREADS) {
    shared[i] = i < live * head_dim ? E::widen(queries[i]) : 0.0f;
  }
}

// Scores of the chunk's tokens for every query of the tile, `[GT, CHUNK]`; a thread owns a token. Zeros up to a whole vector of tokens.
template <class E, int GT>
__device__ __forceinline__ void score_tokens(const Work<E>& work, const Chunk16* queries, float* scores, float scale, float softcap) {
  const uint32_t head_dim = work.pages.head_dim, block = work.pages.block, x = E::PER_CHUNK;
  const uint32_t padded = (work.len + x - 1) / x * x;
  for (uint32_t t = threadIdx.x; t < padded; t += ATTEND_THREADS) {
    float dots[GT];
#pragma unroll
    for (int g = 0; g < GT; ++g) dots[g] = 0.0f;
    if (t < work.len) {
      const uint32_t token = work.first + t;
      const uint32_t page = work.table[token / block], offset = token % block;
      for (uint32_t chunk = 0; chunk < head_dim / x; ++chunk) {
        float key[E::PER_CHUNK];
        E::unpack(work.pages.key_chunk(page, offset, chunk), key);
#pragma unroll
        for (int g = 0; g < GT; ++g) {
#pragma unroll
          for (int quarter = 0; quarter < E::PER_CHUNK / 4; ++quarter) {
            const Chunk16 query = queries[(g * head_dim + chunk * x) / 4 + quarter];
#pragma unroll
            for (int i = 0; i < 4; ++i) dots[g] = fmaf(__uint_as_float(query.words[i]), key[4 * quarter + i], dots[g]);
          }
        }
      }
    }
#pragma unroll
    for (int g = 0; g < GT; ++g) scores[g * CHUNK + t] = t < work.len ? score_of(dots[g], scale, softcap) : 0.0f;
  }
}

// Makes one query's scores weights relative to their highest; a warp owns a query. `stats` gets the highest score and the sum.
__device__ __forceinline__ void weigh_tokens(float* scores, uint32_t len, float* stats, float* kept) {
  const uint32_t lane = threadIdx.x % WARP;
  float highest = minus_infinity();
  for (uint32_t t = lane; t < len; t += WARP) highest = fmaxf(highest, scores[t]);
  highest = warp_max(highest);
  float sum = 0.0f;
  for (uint32_t t = lane; t < len; t += WARP) {
    const float weight = expf(scores[t] - highest);
    scores[t] = weight;
    if (kept != nullptr) kept[t] = weight;
    sum += weight;
  }
  sum = warp_sum(sum);
  if (lane == 0) {
    stats[0] = highest;
    stats[1] = sum;
  }
}

// Weighted sums of the chunk's values, `[GT, D]`, for element `d`; a thread owns an element and every `parts`-th vector of tokens.
template <class E, int GT>
__device__ __forceinline__ void sum_values(const Work<E>& work, const float* weights, uint32_t d, uint32_t part, uint32_t parts, float* sums) {
  const uint32_t block = work.pages.block, x = E::PER_CHUNK;
  for (uint32_t t = part * x; t < work.len; t += parts * x) {
    const uint32_t token = work.first + t;
    float value[E::PER_CHUNK];
    E::unpack(work.pages.value_chunk(work.table[token / block], d, token % block / x), value);
#pragma unroll
    for (int i = 0; i < E::PER_CHUNK; ++i) {
      // Slots beyond the last token may hold anything.
      const float number = t + i < work.len ? value[i] : 0.0f;
#pragma unroll
      for (int g = 0; g < GT; ++g) sums[g] = fmaf(weights[g * CHUNK + t + i], number, sums[g]);
    }
  }
}

// Sums of the chunk's values for all elements, added over the parts in order and written to `out` (`[live, D]`). All threads call it.
template <class E, int GT>
__device__ __forceinline__ void attend_values(const Work<E>& work, const float* weights, float* shared, uint32_t live, float* out) {
  const uint32_t head_dim = work.pages.head_dim;
  const uint32_t lanes = head_dim < ATTEND_THREADS ? head_dim : ATTEND_THREADS;
  const uint32_t parts = ATTEND_THREADS / lanes, part = threadIdx.x / lanes;
  for (uint32_t first = 0; first < head_dim; first += lanes) {
    const uint32_t d = first + threadIdx.x % lanes;
    const bool works = part < parts && d < head_dim;
    float sums[GT];
#pragma unroll
    for (int g = 0; g < GT; ++g) sums[g] = 0.0f;
    if (works) sum_values<E, GT>(work, weights, d, part, parts, sums);
    for (uint32_t turn = 0; turn < parts; ++turn) {
      if (works && part == turn) {
#pragma unroll
        for (int g = 0; g < GT; ++g) {
          const float sum = turn == 0 ? sums[g] : shared[g * head_dim + d] + sums[g];
          shared[g * head_dim + d] = sum;
          if (turn + 1 == parts && g < live) out[g * head_dim + d] = sum;
        }
      }
      __syncthreads();
    }
  }
}

// Block (head, chunk). `queries` is `[S * H, G, D]`; `sums` is `[S * H, chunks, G, D]`, `stats` `[S * H, chunks, G, 2]`, and
// `kept`, where a row is wanted, `[S * H, G, stride]`.
template <class E, int GT>
__device__ __forceinline__ void attend(const Pages<E>& pages, const typename E::Raw* queries, const StepHead* heads,
                                       const uint32_t* page_list, float* sums, float* stats, float* kept, uint32_t group,
                                       uint32_t chunks, uint32_t stride, float scale, float softcap) {
  SHARED(Chunk16, query_chunks, GT * MAX_HEAD_DIM / 4);
  SHARED(float, scores, GT * CHUNK);
  float* const shared = reinterpret_cast<float*>(query_chunks);
  const StepHead head = heads[blockIdx.x];
  const uint32_t first = blockIdx.y * CHUNK;
  if (first >= head.len) return;
  const uint32_t left = head.len - first;
  const Work<E> work{pages, page_list + head.first_page, first, left < CHUNK ? left : CHUNK};
  const uint64_t head_index = blockIdx.x;
  for (uint32_t g = 0; g < group; g += GT) {
    const uint32_t live = group - g < GT ? group - g : GT;
    load_queries<E, GT>(shared, queries + (head_index * group + g) * pages.head_dim, live, pages.head_dim);
    __syncthreads();
    score_tokens<E, GT>(work, query_chunks, scores, scale, softcap);
    __syncthreads();
    const uint64_t row = (head_index * chunks + blockIdx.y) * group + g;
    for (uint32_t query = threadIdx.x / WARP; query < live; query += ATTEND_WARPS) {
      float* const keep = kept == nullptr ? nullptr : kept + (head_index * group + g + query) * stride + first;
      weigh_tokens(scores + query * CHUNK, work.len, stats + 2 * (row + query), keep);
    }
    __syncthreads();
    attend_values<E, GT>(work, scores, shared, live, sums + row * pages.head_dim);
  }
}

// The highest score of all chunks of a query, and the sum of their weights relative to it, first chunk to last.
__device__ __forceinline__ void weigh_chunks(const float* stats, uint32_t chunks, uint32_t group, float* highest, float* weight) {
  *highest = minus_infinity();
  for (uint32_t c = 0; c < chunks; ++c) *highest = fmaxf(*highest, stats[2 * c * group]);
  *weight = 0.0f;
  for (uint32_t c = 0; c < chunks; ++c) *weight += expf(stats[2 * c * group] - *highest) * stats[2 * c * group + 1];
}

// Where a head's attention row goes.
struct RowTarget {
  // `[S * H, stride]`, or null.
  float* rows;
  // `[P, B]`: the row is added to the slots' scores; or null.
  float* scores;
  // 0 mean, 1 sum, 2 maximum over the group.
  uint32_t reduce;
};

// Block head. Puts its chunks together into `out`, `[S * H, G, D]`, and its kept weights into the row.
template <class E>
__device__ __forceinline__ void merge(typename E::Raw* out, const StepHead* heads, const uint32_t* page_list, const float* sums,
                                      const float* stats, const float* kept, const RowTarget& target, uint32_t group,
                                      uint32_t head_dim, uint32_t block, uint32_t chunks, uint32_t stride) {
  SHARED(float, highest, MAX_GROUP);
  SHARED(float, weight, MAX_GROUP);
  const StepHead head = heads[blockIdx.x];
  const uint64_t head_index = blockIdx.x;
  const uint32_t used = (head.len + CHUNK - 1) / CHUNK;
  stats += 2 * head_index * chunks * group;
  sums += head_index * chunks * group * head_dim;
  for (uint32_t g = threadIdx.x; g < group; g += ATTEND_THREADS) {
    weigh_chunks(stats + 2 * g, used, group, &highest[g], &weight[g]);
  }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < group * head_dim; i += ATTEND_THREADS) {
    const uint32_t g = i / head_dim;
    float sum = 0.0f;
    for (uint32_t c = 0; c < used; ++c) {
      const float share = expf(stats[2 * (c * group + g)] - highest[g]);
      sum += share * sums[static_cast<uint64_t>(c) * group * head_dim + i];
    }
    out[head_index * group * head_dim + i] = E::narrow(used == 0 ? 0.0f : sum / weight[g]);
  }
  if (kept == nullptr) return;
  kept += head_index * group * stride;
  for (uint32_t t = threadIdx.x; t < head.len; t += ATTEND_THREADS) {
    float row = 0.0f;
    for (uint32_t g = 0; g < group; ++g) {
      const float share = expf(stats[2 * (t / CHUNK * group + g)] - highest[g]) / weight[g];
      const float seen = share * kept[static_cast<uint64_t>(g) * stride + t];
      row = target.reduce == 2 ? fmaxf(row, seen) : row + seen;
    }
    if (target.reduce == 0) row /= static_cast<float>(group);
    if (target.rows != nullptr) target.rows[head_index * stride + t] = row;
    if (target.scores != nullptr) {
      const uint32_t page = page_list[head.first_page + t / block];
      target.scores[static_cast<uint64_t>(page) * block + t % block] += row;
    }
  }
}
