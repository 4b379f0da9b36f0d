// The entry points of the CUDA backend. `src/cuda/entries.rs` states the same list; a test compares the two.
//
// `cargo xtask cuda-kernels --write` compiles this file to `src/cuda/kernels.ptx`.
#include "append.cuh"
#include "attend.cuh"
#include "keep.cuh"
#include "observe.cuh"
#include "rows.cuh"

// Sizes and offsets that the Rust side repeats.
#define FIELD(type, field) static_cast<uint32_t>(__builtin_offsetof(type, field))
extern "C" __device__ const uint32_t kv_layout[] = {
    sizeof(StepHead), FIELD(StepHead, first_page), FIELD(StepHead, len), FIELD(StepHead, target), FIELD(StepHead, recent),
    sizeof(RowWrite), FIELD(RowWrite, source), FIELD(RowWrite, page), FIELD(RowWrite, offset), FIELD(RowWrite, position),
    sizeof(RowCopy), FIELD(RowCopy, from_page), FIELD(RowCopy, from_offset), FIELD(RowCopy, to_page), FIELD(RowCopy, to_offset),
    sizeof(RowShift), FIELD(RowShift, page), FIELD(RowShift, offset), FIELD(RowShift, by),
    sizeof(Verb), FIELD(Verb, kind), FIELD(Verb, head), FIELD(Verb, amount), FIELD(Verb, recent),
    ATTEND_THREADS, CHUNK, MAX_HEAD_DIM, MAX_GROUP, ROW_THREADS, APPEND_THREADS, TILE_THREADS, TILE_QUERIES, TILE_KEYS,
    REDUCE_THREADS, KEEP_THREADS, ACROSS_THREADS, PINNED, LOWEST, NO_TARGET, EVERY_HEAD,
    VERB_WINDOW, VERB_TOP, VERB_COUNTED, VERB_SLOTS,
};

#define ATTEND(E, NAME, GT) \
  extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, MIN_ATTEND_BLOCKS) \
      kv_attend_g##GT##_##NAME(E::Raw* keys, E::Raw* values, const E::Raw* queries, const StepHead* heads,                       \
                               const uint32_t* page_list, float* sums, float* stats, float* kept, uint32_t group,                \
                               uint32_t head_dim, uint32_t block, uint32_t chunks, uint32_t stride, float scale, float softcap) { \
    attend<E, GT>(Pages<E>{keys, values, head_dim, block}, queries, heads, page_list, sums, stats, kept, group, chunks, stride,  \
                  scale, softcap);                                                                                               \
  }                                                                                                                              \
  KV_ENTRY(kv_attend_g##GT##_##NAME)

#define ROWS(E, NAME)                                                                                                            \
  extern "C" __global__ void __launch_bounds__(ROW_THREADS)                                                                      \
      kv_write_##NAME(E::Raw* keys, E::Raw* values, uint32_t* positions, float* scores, const E::Raw* new_keys,                  \
                      const E::Raw* new_values, const float* observed, const RowWrite* rows, uint32_t count, uint32_t head_dim,  \
                      uint32_t block) {                                                                                          \
    write_rows<E>(Pages<E>{keys, values, head_dim, block}, positions, scores, new_keys, new_values, observed, rows, count);      \
  }                                                                                                                              \
  KV_ENTRY(kv_write_##NAME)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(ROW_THREADS)                                                                      \
      kv_copy_##NAME(E::Raw* keys, E::Raw* values, uint32_t* positions, float* scores, const RowCopy* rows, uint32_t count,      \
                     uint32_t head_dim, uint32_t block) {                                                                        \
    copy_rows<E>(Pages<E>{keys, values, head_dim, block}, positions, scores, rows, count);                                       \
  }                                                                                                                              \
  KV_ENTRY(kv_copy_##NAME)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(ROW_THREADS)                                                                      \
      kv_shift_##NAME(E::Raw* keys, const RowShift* rows, const float* cosines, const float* sines, uint32_t count,              \
                      uint32_t rotary_dim, uint32_t interleaved, uint32_t head_dim, uint32_t block) {                            \
    shift_rows<E>(Pages<E>{keys, nullptr, head_dim, block}, rows, count, cosines, sines, rotary_dim, interleaved);               \
  }                                                                                                                              \
  KV_ENTRY(kv_shift_##NAME)                                                                                                      \
  extern "C" __global__ void __launch_bounds__(APPEND_THREADS)                                                                   \
      kv_append_##NAME(E::Raw* keys, E::Raw* values, uint32_t* positions, float* scores, const E::Raw* new_keys,                 \
                       const E::Raw* new_values, const StepHead* heads, const uint32_t* page_list,                               \
                       const uint32_t* new_positions, uint32_t per_sequence, uint32_t row_stride, uint32_t first_row,            \
                       uint32_t head_dim, uint32_t block) {                                                                      \
    append<E>(Pages<E>{keys, values, head_dim, block}, positions, scores, new_keys, new_values, heads, page_list, new_positions, \
              per_sequence, row_stride, first_row);                                                                              \
  }                                                                                                                              \
  KV_ENTRY(kv_append_##NAME)

#define PROMPT(E, NAME)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                                     \
      kv_weigh_queries_##NAME(const E::Raw* queries, const E::Raw* keys, float* stats, uint32_t rows, uint32_t tokens,           \
                              uint32_t first_query, uint32_t group, uint32_t head_dim, float scale, float softcap) {             \
    weigh_queries<E>(prompt_of_block<E>(queries, keys, rows, tokens, group, head_dim, scale, softcap), first_query, stats);      \
  }                                                                                                                              \
  KV_ENTRY(kv_weigh_queries_##NAME)                                                                                              \
  extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                                     \
      kv_fold_queries_##NAME(const E::Raw* queries, const E::Raw* keys, const float* stats, float* columns, uint32_t rows,       \
                             uint32_t tokens, uint32_t first_query, uint32_t before, uint32_t reduce, uint32_t group,            \
                             uint32_t head_dim, float scale, float softcap) {                                                    \
    fold_queries<E>(prompt_of_block<E>(queries, keys, rows, tokens, group, head_dim, scale, softcap), first_query, before,       \
                    reduce, stats, columns);                                                                                     \
  }                                                                                                                              \
  KV_ENTRY(kv_fold_queries_##NAME)                                                                                               \
  extern "C" __global__ void __launch_bounds__(REDUCE_THREADS)                                                                   \
      kv_key_norms_##NAME(const E::Raw* keys, float* out, uint32_t rows, uint32_t tokens, uint32_t head_dim, uint32_t stride) {  \
    key_norms<E>(keys, out, rows, tokens, head_dim, stride);                                                                     \
  }                                                                                                                              \
  KV_ENTRY(kv_key_norms_##NAME)

#define MERGE(E, NAME)                                                                                                           \
  extern "C" __global__ void __launch_bounds__(ATTEND_THREADS)                                                                   \
      kv_merge_##NAME(E::Raw* out, const StepHead* heads, const uint32_t* page_list, const float* sums, const float* stats,      \
                      const float* kept, float* rows, float* scores, uint32_t reduce, uint32_t group, uint32_t head_dim,         \
                      uint32_t block, uint32_t chunks, uint32_t stride) {                                                        \
    merge<E>(out, heads, page_list, sums, stats, kept, RowTarget{rows, scores, reduce}, group, head_dim, block, chunks, stride); \
  }                                                                                                                              \
  KV_ENTRY(kv_merge_##NAME)

#define ALL(E, NAME)  \
  ATTEND(E, NAME, 1)  \
  ATTEND(E, NAME, 4)  \
  ATTEND(E, NAME, 8)  \
  MERGE(E, NAME)      \
  ROWS(E, NAME)       \
  PROMPT(E, NAME)

ALL(F32, f32)
ALL(F16, f16)
ALL(BF16, bf16)

extern "C" __global__ void __launch_bounds__(REDUCE_THREADS)
    kv_reduce_heads(const float* columns, float* out, uint32_t tokens, uint32_t stride, uint32_t before, uint32_t group,
                    uint32_t group_reduce, uint32_t pool, uint32_t reach, float width, uint32_t pool_first) {
  reduce_heads(Reducer{columns, before, group, group_reduce, pool, reach, width, pool_first}, out, tokens, stride);
}
KV_ENTRY(kv_reduce_heads)

extern "C" __global__ void __launch_bounds__(KEEP_THREADS)
    kv_keep(const float* scores, const Verb* verbs, const uint32_t* counts, const unsigned char* given, const uint32_t* spans,
            unsigned char* masks, uint32_t* slots, uint32_t* lens, uint32_t verb_count, uint32_t span_count, uint32_t n,
            uint32_t stride) {
  keep(scores, verbs, verb_count, counts, given, spans, span_count, n, stride, masks, slots, lens);
}
KV_ENTRY(kv_keep)

extern "C" __global__ void __launch_bounds__(ACROSS_THREADS)
    kv_across_heads(const float* scores, uint32_t* limits, uint32_t* counts, uint32_t heads, uint32_t others, uint32_t stride,
                    uint32_t floor, uint32_t wanted) {
  across_heads(scores, heads, others, stride, floor, wanted, limits, counts);
}
KV_ENTRY(kv_across_heads)
