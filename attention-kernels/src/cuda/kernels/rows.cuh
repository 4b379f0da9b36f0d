// Kernels that move rows: into slots, between slots, and keys to other positions. A warp serves a row.
#pragma once
#include "page.cuh"

constexpr int ROW_THREADS = 128;

__device__ __forceinline__ uint32_t row_of_warp() { return (blockIdx.x * ROW_THREADS + threadIdx.x) / WARP; }
__device__ __forceinline__ uint32_t lane_of_thread() { return threadIdx.x % WARP; }

// Writes row `source` of `keys` and `values` (rows of D) into a slot; `lanes` threads share the work.
template <class E>
__device__ __forceinline__ void put_row(const Pages<E>& pages, uint32_t page, uint32_t offset, const typename E::Raw* keys,
                                        const typename E::Raw* values, uint64_t source, uint32_t lane, uint32_t lanes) {
  for (uint32_t d = lane; d < pages.head_dim; d += lanes) {
    pages.keys[pages.key(page, offset, d)] = keys[source * pages.head_dim + d];
    pages.values[pages.value(page, offset, d)] = values[source * pages.head_dim + d];
  }
}

template <class E>
__device__ __forceinline__ void write_rows(const Pages<E>& pages, uint32_t* positions, float* scores,
                                           const typename E::Raw* keys, const typename E::Raw* values,
                                           const float* observed, const RowWrite* rows, uint32_t count) {
  const uint32_t index = row_of_warp(), lane = lane_of_thread();
  if (index >= count) return;
  const RowWrite row = rows[index];
  put_row<E>(pages, row.page, row.offset, keys, values, row.source, lane, WARP);
  const uint64_t slot = static_cast<uint64_t>(row.page) * pages.block + row.offset;
  if (lane == 0 && positions != nullptr) positions[slot] = row.position;
  if (lane == 0 && scores != nullptr) scores[slot] = observed != nullptr ? observed[row.source] : 0.0f;
}

// No target may be another entry's source or target.
template <class E>
__device__ __forceinline__ void copy_rows(const Pages<E>& pages, uint32_t* positions, float* scores, const RowCopy* rows,
                                          uint32_t count) {
  const uint32_t index = row_of_warp(), lane = lane_of_thread();
  if (index >= count) return;
  const RowCopy row = rows[index];
  for (uint32_t d = lane; d < pages.head_dim; d += WARP) {
    pages.keys[pages.key(row.to_page, row.to_offset, d)] = pages.keys[pages.key(row.from_page, row.from_offset, d)];
    pages.values[pages.value(row.to_page, row.to_offset, d)] = pages.values[pages.value(row.from_page, row.from_offset, d)];
  }
  const uint64_t from = static_cast<uint64_t>(row.from_page) * pages.block + row.from_offset;
  const uint64_t to = static_cast<uint64_t>(row.to_page) * pages.block + row.to_offset;
  if (lane == 0 && positions != nullptr) positions[to] = positions[from];
  if (lane == 0 && scores != nullptr) scores[to] = scores[from];
}

// Rotates keys by `by` positions. `cosines` and `sines` are `[positions, R/2]`: the angles of |by|.
template <class E>
__device__ __forceinline__ void shift_rows(const Pages<E>& pages, const RowShift* rows, uint32_t count, const float* cosines,
                                           const float* sines, uint32_t rotary_dim, uint32_t interleaved) {
  const uint32_t index = row_of_warp();
  if (index >= count) return;
  const RowShift row = rows[index];
  if (row.by == 0) return;  // keeps every bit
  const uint32_t pairs = rotary_dim / 2;
  const uint32_t steps = static_cast<uint32_t>(row.by < 0 ? -row.by : row.by);
  for (uint32_t pair = lane_of_thread(); pair < pairs; pair += WARP) {
    const uint32_t first = interleaved != 0 ? 2 * pair : pair;
    const uint32_t second = interleaved != 0 ? 2 * pair + 1 : pair + pairs;
    const uint64_t angle = static_cast<uint64_t>(steps) * pairs + pair;
    const float cosine = cosines[angle], sine = row.by < 0 ? -sines[angle] : sines[angle];
    typename E::Raw* const a = pages.keys + pages.key(row.page, row.offset, first);
    typename E::Raw* const b = pages.keys + pages.key(row.page, row.offset, second);
    const float x = E::widen(*a), y = E::widen(*b);
    *a = E::narrow(x * cosine - y * sine);
    *b = E::narrow(x * sine + y * cosine);
  }
}
