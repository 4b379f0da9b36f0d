// Kernels that do nothing wrong. `tests/right.rs` knows what each must compute.

#include "cuda_host_shim.h"

extern "C" __global__ void shim_scale(float* numbers, float by, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) numbers[i] *= by;
}
KV_ENTRY(shim_scale)

// Each thread of a three-dimensional grid writes where it is.
extern "C" __global__ void shim_places(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  unsigned* mine = out + 6 * (block * threads + thread);
  mine[0] = blockIdx.x;
  mine[1] = blockIdx.y;
  mine[2] = blockIdx.z;
  mine[3] = threadIdx.x;
  mine[4] = threadIdx.y;
  mine[5] = threadIdx.z;
}
KV_ENTRY(shim_places)

template <int Threads>
__device__ __forceinline__ float block_sum(float mine) {
  SHARED(float, sums, Threads / 32);
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, lanes);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = mine;
  __syncthreads();
  float all = 0.0f;
  for (int warp = 0; warp < Threads / 32; warp++) all += sums[warp];
  __syncthreads();
  return all;
}

// One block per row: the row's numbers less their mean.
extern "C" __global__ void __launch_bounds__(128) shim_centre(const float* __restrict__ rows, float* __restrict__ out, int width) {
  const float* row = rows + blockIdx.x * width;
  float mine = 0.0f;
  for (int i = threadIdx.x; i < width; i += 128) mine += __ldg(row + i);
  const float mean = block_sum<128>(mine) / width;
  for (int i = threadIdx.x; i < width; i += 128) out[blockIdx.x * width + i] = row[i] - mean;
}
KV_ENTRY(shim_centre)

// Turns `count` numbers round through dynamic shared memory, four at a time.
extern "C" __global__ void shim_reverse(const float4* in, float4* out) {
  DYN_SHARED(float4, copy);
  const float4 four = in[threadIdx.x];
  copy[blockDim.x - 1 - threadIdx.x] = make_float4(four.w, four.z, four.y, four.x);
  __syncthreads();
  out[threadIdx.x] = copy[threadIdx.x];
}
KV_ENTRY(shim_reverse)

// What every lane gets of every collective, 10 numbers each.
extern "C" __global__ void shim_collectives(unsigned long long* out, int argument, int width) {
  const unsigned all = 0xffffffffu;
  const int lane = threadIdx.x;
  const unsigned long long wide = 0x100000000ull * (lane + 1);
  unsigned long long* mine = out + 10 * lane;
  mine[0] = __shfl_sync(all, lane, argument, width);
  mine[1] = __shfl_xor_sync(all, lane, argument, width);
  mine[2] = __shfl_up_sync(all, lane, argument, width);
  mine[3] = __shfl_down_sync(all, lane, argument, width);
  mine[4] = __shfl_sync(all, wide, argument, width);
  mine[5] = __ballot_sync(all, lane % 3 == 0);
  mine[6] = __any_sync(all, lane == argument);
  mine[7] = __all_sync(all, lane >= 0);
  mine[8] = __all_sync(all, lane != 5);
  // The two halves of the warp apart.
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  mine[9] = __ballot_sync(half, lane % 2);
}
KV_ENTRY(shim_collectives)

// Counts bytes into 256 bins, through a count per block.
extern "C" __global__ void shim_histogram(const unsigned char* bytes, unsigned* bins, int count) {
  SHARED(unsigned, mine, 256);
  for (int i = threadIdx.x; i < 256; i += blockDim.x) mine[i] = 0;
  __syncthreads();
  const int stride = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) atomicAdd(&mine[bytes[i]], 1u);
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&bins[i], mine[i]);
}
KV_ENTRY(shim_histogram)

// All threads of all blocks on the same cells.
extern "C" __global__ void shim_atomics(unsigned* u, int* s, unsigned long long* w, float* f) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&u[0], static_cast<unsigned>(i));
  atomicMax(&u[1], static_cast<unsigned>(i));
  atomicMin(&u[2], static_cast<unsigned>(i));
  atomicOr(&u[3], 1u << (i % 32));
  atomicAnd(&u[4], ~(1u << (i % 32)));
  if (i == 3) u[6] = atomicExch(&u[5], 77u);
  // The largest float by way of compare and swap, as kernels do it that have no atomic maximum of floats.
  unsigned seen = __float_as_uint(0.0f), before;
  const float mine = 0.5f * i;
  do {
    before = seen;
    if (__uint_as_float(before) >= mine) break;
    seen = atomicCAS(&u[7], before, __float_as_uint(mine));
  } while (seen != before);
  atomicAdd(&s[0], -i);
  atomicMax(&s[1], -i);
  atomicMin(&s[2], -i);
  atomicAdd(&w[0], 0x100000000ull);
  atomicMax(&w[1], 0x100000000ull * i);
  atomicAdd(&f[0], 0.5f);
}
KV_ENTRY(shim_atomics)

// Lanes of a warp hand numbers on through shared memory, ordered by __syncwarp alone.
extern "C" __global__ void shim_rotate(int* out, int steps) {
  SHARED(int, ring, 64);
  const int at = threadIdx.x;
  const int next = at / 32 * 32 + (at + 1) % 32;
  ring[at] = at;
  __syncwarp();
  for (int step = 0; step < steps; step++) {
    const int number = ring[next];
    __syncwarp();
    ring[at] = number;
    __syncwarp();
  }
  out[at] = ring[at];
}
KV_ENTRY(shim_rotate)

// Lanes leave the kernel, and the others need not wait for them.
extern "C" __global__ void shim_leave(unsigned* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
}
KV_ENTRY(shim_leave)

__constant__ static const int primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};

extern "C" __global__ void shim_numbers(unsigned* out, unsigned bits, float number) {
  out[0] = __popc(bits);
  out[1] = __ffs(bits);
  out[2] = __clz(bits);
  out[3] = __float_as_uint(number);
  out[4] = __float_as_uint(__uint_as_float(bits));
  out[5] = __float_as_uint(__int_as_float(__float_as_int(number)));
  out[6] = __float_as_uint(__fmaf_rn(number, number, -1.0f));
  out[7] = min(static_cast<int>(bits), 5);
  out[8] = max(bits, 5u);
  out[9] = __float_as_uint(min(number, 2.0f));
  out[10] = __float_as_uint(max(number, NAN));
  out[11] = primes[bits % 8];
}
KV_ENTRY(shim_numbers)

extern "C" __global__ void shim_decode(const unsigned short* f16, const unsigned short* bf16, float* from_f16, float* from_bf16) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  from_f16[i] = f16_to_f32(f16[i]);
  from_bf16[i] = bf16_to_f32(bf16[i]);
}
KV_ENTRY(shim_decode)

extern "C" __global__ void shim_encode(const float* numbers, unsigned short* f16, unsigned short* bf16, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  f16[i] = f32_to_f16(numbers[i]);
  bf16[i] = f32_to_bf16(numbers[i]);
}
KV_ENTRY(shim_encode)
