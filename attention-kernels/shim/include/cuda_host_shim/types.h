// Qualifiers, built-in variables, vector types and shared memory.
#pragma once

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define threadIdx (::kv_shim::thread_index())
#define blockIdx (::kv_shim::block_index())
#define blockDim (::kv_shim::block_shape())
#define gridDim (::kv_shim::grid_shape())
constexpr int warpSize = 32;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr operator kv_shim::Index3() const { return {x, y, z}; }
};

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class T>
inline T __ldg(const T* address) {
  return *address;
}

// `SHARED(float, sums, 32);` declares what CUDA writes `__shared__ float sums[32];`. The static tells one declaration, in one
// instance of a template, from every other.
#define SHARED(T, name, N)                       \
  static const char name##_shared_key = 0;       \
  T(&name)[N] = *reinterpret_cast<T(*)[N]>(      \
      ::kv_shim::shared_array(&name##_shared_key, #name, sizeof(T) * (N), alignof(T)))

// `DYN_SHARED(float, scratch);` declares what CUDA writes `extern __shared__ float scratch[];`.
#define DYN_SHARED(T, name) T* name = static_cast<T*>(::kv_shim::dynamic_shared())
