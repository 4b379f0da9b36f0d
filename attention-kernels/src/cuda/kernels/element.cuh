// The element types of pages and activations. Arithmetic is always f32.
#pragma once
#include "platform.cuh"

// 16 bytes, the unit in which rows are read.
struct alignas(16) Chunk16 {
  uint32_t words[4];
};

struct F32 {
  typedef float Raw;
  static constexpr int PER_CHUNK = 4;
  static __device__ __forceinline__ float widen(Raw raw) { return raw; }
  static __device__ __forceinline__ Raw narrow(float number) { return number; }
  static __device__ __forceinline__ void unpack(const Chunk16& chunk, float* numbers) {
#pragma unroll
    for (int i = 0; i < 4; ++i) numbers[i] = __uint_as_float(chunk.words[i]);
  }
};

struct F16 {
  typedef uint16_t Raw;
  static constexpr int PER_CHUNK = 8;
  static __device__ __forceinline__ float widen(Raw raw) { return f16_to_f32(raw); }
  static __device__ __forceinline__ Raw narrow(float number) { return f32_to_f16(number); }
  static __device__ __forceinline__ void unpack(const Chunk16& chunk, float* numbers) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      numbers[2 * i] = f16_to_f32(static_cast<uint16_t>(chunk.words[i]));
      numbers[2 * i + 1] = f16_to_f32(static_cast<uint16_t>(chunk.words[i] >> 16));
    }
  }
};

struct BF16 {
  typedef uint16_t Raw;
  static constexpr int PER_CHUNK = 8;
  static __device__ __forceinline__ float widen(Raw raw) { return bf16_to_f32(raw); }
  static __device__ __forceinline__ Raw narrow(float number) { return f32_to_bf16(number); }
  static __device__ __forceinline__ void unpack(const Chunk16& chunk, float* numbers) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      numbers[2 * i] = __uint_as_float(chunk.words[i] << 16);
      numbers[2 * i + 1] = __uint_as_float(chunk.words[i] & 0xffff0000u);
    }
  }
};
