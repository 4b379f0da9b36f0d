// Kernels with one fault each, which `wrong` switches on. Without it each is right. `tests/wrong.rs` knows what must be found.
//
// All run with two blocks of 64 threads, get `out` with 256 zeros and `in` with 256 numbers, and can use 256 bytes of dynamic
// shared memory.

#include "cuda_host_shim.h"

#define FAULT(name) \
  extern "C" __global__ void name(int* out, const int* in, int wrong); \
  KV_ENTRY(name) \
  extern "C" __global__ void name(int* out, const int* in, int wrong)

__device__ __forceinline__ int place() { return blockIdx.x * blockDim.x + threadIdx.x; }

FAULT(fault_dropped_barrier) {
  SHARED(int, numbers, 64);
  numbers[threadIdx.x] = in[place()];
  if (!wrong) __syncthreads();
  out[place()] = numbers[(threadIdx.x + 1) % 64];
}

FAULT(fault_dropped_second_barrier) {
  SHARED(int, numbers, 64);
  numbers[threadIdx.x] = in[place()];
  __syncthreads();
  const int next = numbers[(threadIdx.x + 1) % 64];
  if (!wrong) __syncthreads();
  numbers[threadIdx.x] = 2 * next;
  out[place()] = numbers[threadIdx.x];
}

FAULT(fault_shared_write_write) {
  SHARED(int, numbers, 64);
  numbers[wrong ? 0 : threadIdx.x] = in[place()];
  __syncthreads();
  out[place()] = numbers[wrong ? 0 : threadIdx.x];
}

FAULT(fault_dropped_syncwarp) {
  SHARED(int, numbers, 64);
  numbers[threadIdx.x] = in[place()];
  if (!wrong) __syncwarp();
  out[place()] = numbers[threadIdx.x ^ 1];
}

// A barrier of each half of the warp does not order the halves.
FAULT(fault_syncwarp_of_halves) {
  SHARED(int, numbers, 64);
  const unsigned half = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  numbers[threadIdx.x] = in[place()];
  __syncwarp(half);
  out[place()] = numbers[threadIdx.x ^ (wrong ? 16 : 1)];
}

// A shuffle hands on a value, and orders nothing.
FAULT(fault_shuffle_for_barrier) {
  SHARED(int, numbers, 64);
  numbers[threadIdx.x] = in[place()];
  if (wrong) {
    __shfl_xor_sync(0xffffffffu, 0, 1);
  } else {
    __syncwarp();
  }
  out[place()] = numbers[threadIdx.x ^ 1];
}

FAULT(fault_shared_uninitialised) {
  SHARED(int, numbers, 64);
  if (!wrong || threadIdx.x != 63) numbers[threadIdx.x] = in[place()];
  __syncthreads();
  out[place()] = numbers[63 - threadIdx.x];
}

// Shared memory does not outlive its block.
FAULT(fault_shared_of_earlier_block) {
  SHARED(int, numbers, 64);
  if (!wrong || blockIdx.x == 0) numbers[threadIdx.x] = in[place()];
  if (blockIdx.x == 1 || !wrong) out[place()] = numbers[threadIdx.x];
}

FAULT(fault_dynamic_out_of_bounds) {
  DYN_SHARED(int, numbers);
  numbers[threadIdx.x + wrong] = in[place()];
  __syncthreads();
  out[place()] = numbers[threadIdx.x + wrong];
}

// Through a pointer, so that the size of the array is forgotten.
FAULT(fault_static_out_of_bounds) {
  SHARED(int, numbers, 64);
  SHARED(int, neighbours, 64);
  int* at = numbers;
  neighbours[threadIdx.x] = 1;
  at[threadIdx.x + wrong] = in[place()];
  __syncthreads();
  out[place()] = numbers[threadIdx.x] + neighbours[threadIdx.x];
}

FAULT(fault_index_of_static) {
  SHARED(int, numbers, 64);
  numbers[threadIdx.x + wrong] = in[place()];
  __syncthreads();
  out[place()] = numbers[threadIdx.x];
}

FAULT(fault_index_of_local) {
  int numbers[4] = {1, 2, 3, 4};
  out[place()] = numbers[in[place()] % 4 + 4 * wrong];
}

FAULT(fault_global_past_end) { out[place() + (wrong ? 129 : 0)] = in[place()]; }

FAULT(fault_global_before_begin) { out[place() - wrong] = in[place()]; }

FAULT(fault_null) {
  const int* from = wrong ? nullptr : in;
  out[place()] = from[place()];
}

FAULT(fault_plain_add_between_blocks) {
  if (threadIdx.x != 0) return;
  if (wrong) {
    out[0] += in[blockIdx.x];
  } else {
    atomicAdd(&out[0], in[blockIdx.x]);
  }
}

FAULT(fault_plain_add_between_threads) {
  if (blockIdx.x != 0) return;
  if (wrong) {
    out[0] += in[threadIdx.x];
  } else {
    atomicAdd(&out[0], in[threadIdx.x]);
  }
}

FAULT(fault_atomic_and_plain) {
  if (threadIdx.x >= 2) return;
  if (wrong && threadIdx.x == 1) {
    out[blockIdx.x] = 1;
  } else {
    atomicAdd(&out[blockIdx.x], 1);
  }
}

FAULT(fault_read_of_other_block) {
  if (threadIdx.x != 0) return;
  out[blockIdx.x] = 1;
  if (wrong) out[2 + blockIdx.x] = out[1 - blockIdx.x];
}

FAULT(fault_overwrite_between_blocks) { out[wrong ? threadIdx.x : place()] = in[place()]; }

FAULT(fault_divergent_barrier) {
  if (wrong && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[place()] = 1;
}

FAULT(fault_barrier_after_exit) {
  if (wrong && threadIdx.x == 7) return;
  __syncthreads();
  out[place()] = 1;
}

FAULT(fault_mask_without_self) {
  out[place()] = __shfl_xor_sync(wrong ? 0xfffffffeu : 0xffffffffu, static_cast<int>(threadIdx.x), 1);
}

FAULT(fault_shuffle_outside_mask) {
  if (threadIdx.x % 32 < 16) out[place()] = __shfl_xor_sync(0x0000ffffu, static_cast<int>(threadIdx.x), wrong ? 16 : 1);
}

FAULT(fault_shuffle_from_exited) {
  if (wrong && threadIdx.x % 32 == 31) return;
  out[place()] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), 31);
}

FAULT(fault_different_collectives) {
  const int lane = threadIdx.x;
  if (wrong && lane % 32 == 3) {
    out[place()] = __ballot_sync(0xffffffffu, 1);
  } else {
    out[place()] = __shfl_sync(0xffffffffu, lane, 3);
  }
}

FAULT(fault_same_shuffle_in_two_places) {
  const int lane = threadIdx.x;
  if (wrong && lane % 32 < 16) {
    out[place()] = __shfl_sync(0xffffffffu, lane, 3);
  } else {
    out[place()] = __shfl_sync(0xffffffffu, lane, 3);
  }
}

FAULT(fault_width) { out[place()] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1, wrong ? 12 : 8); }

FAULT(fault_deadlock) {
  if (!wrong || threadIdx.x % 32 < 16) out[place()] = __any_sync(0xffffffffu, 1);
  __syncthreads();
}

FAULT(fault_misaligned) {
  if (threadIdx.x != 0) return;
  const int4 four = *reinterpret_cast<const int4*>(in + 4 * blockIdx.x + wrong);
  out[blockIdx.x] = four.x + four.w;
}

FAULT(fault_local_of_other_thread) {
  SHARED(int*, pointers, 64);
  int mine = in[place()];
  pointers[threadIdx.x] = &mine;
  __syncthreads();
  out[place()] = *pointers[wrong ? (threadIdx.x + 1) % 64 : threadIdx.x];
}

FAULT(fault_too_much_shared) {
  if (!wrong) return;
  SHARED(int, numbers, 16000);
  numbers[threadIdx.x] = 1;
}
