// What the kernels need of their platform, and nothing else: no header of the CUDA toolkit is included, so that the
// sources compile with nvcc and NVRTC alike, and as plain C++ under the host shim.
#pragma once

#ifdef KV_HOST_SHIM
#include <cuda_host_shim.h>
#else

typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;

// A static array in the shared memory of the block.
#define SHARED(T, name, N) __shared__ T name[N]
// Entries are listed for the host shim; here their `extern "C"` is enough.
#define KV_ENTRY(name)

__device__ __forceinline__ float f16_to_f32(uint16_t bits) {
  float number;
  asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits));
  return number;
}

__device__ __forceinline__ uint16_t f32_to_f16(float number) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(number));
  return bits;
}

__device__ __forceinline__ float bf16_to_f32(uint16_t bits) {
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

__device__ __forceinline__ uint16_t f32_to_bf16(float number) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(number));
  return bits;
}
#endif

constexpr uint32_t FULL_WARP = 0xffffffffu;
constexpr int WARP = 32;

// How a dot product becomes a score; a cap of 0 is no cap.
__device__ __forceinline__ float score_of(float dot, float scale, float softcap) {
  const float score = dot * scale;
  return softcap > 0.0f ? softcap * tanhf(score / softcap) : score;
}

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float warp_max(float number) {
  for (int reach = WARP / 2; reach > 0; reach /= 2) {
    number = fmaxf(number, __shfl_xor_sync(FULL_WARP, number, reach));
  }
  return number;
}

__device__ __forceinline__ float warp_sum(float number) {
  for (int reach = WARP / 2; reach > 0; reach /= 2) {
    number += __shfl_xor_sync(FULL_WARP, number, reach);
  }
  return number;
}
