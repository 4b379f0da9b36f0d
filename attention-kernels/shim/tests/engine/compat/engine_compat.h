// What the engine's CUDA sources need beyond our header, once `rewrite.rs` has been over them.
#pragma once

#include <cassert>
#include <cstdint>
#include <tuple>

#include "cuda_host_shim.h"

// The part of the CUDA runtime that its launchers call. A launch here is over when it returns.
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
template <class F>
inline cudaError_t cudaFuncSetAttribute(F, int, int) { return cudaSuccess; }

// `kernel<<<grid, block, shared, stream>>>(args)` was rewritten to `kernel ->*launch_on(grid, block, shared, stream)(args)`.
template <class... Args>
struct BoundLaunch {
  kv_shim::LaunchShape shape;
  std::tuple<Args...> args;
};

struct LaunchConfiguration {
  kv_shim::LaunchShape shape;
  template <class... Args>
  BoundLaunch<Args...> operator()(Args... args) const { return {shape, {args...}}; }
};

inline LaunchConfiguration launch_on(dim3 grid, dim3 block, std::size_t shared, cudaStream_t) { return {{grid, block, shared}}; }

// Adds up the findings of all launches.
extern std::size_t engine_findings;
void engine_report();

template <class... Parameters, class... Args>
void operator->*(void (*kernel)(Parameters...), const BoundLaunch<Args...>& bound) {
  // Arguments are static: the kernel may read the program's image, but no stack of the host.
  static std::tuple<Parameters...> args;
  static void (*target)(Parameters...);
  args = bound.args;
  target = kernel;
  const auto body = [](const void*) { std::apply(target, args); };
  if (kv_shim::launch("engine", bound.shape, body, nullptr) > 0) engine_report();
}

// bf16 by its bits, and the functions of it that are used.
struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 a) { return bf16_to_f32(a.bits); }
inline __nv_bfloat16 __float2bfloat16(float a) { return {f32_to_bf16(a)}; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {bf16_to_f32(a.x.bits), bf16_to_f32(a.y.bits)}; }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 a) { return {a, a}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 a) { return {__float2bfloat16(a.x), __float2bfloat16(a.y)}; }

// A product or sum of two halves is exact enough in f32 that rounding twice is rounding once; a product and a sum needs f64.
inline __nv_bfloat16 __hadd(__nv_bfloat16 a, __nv_bfloat16 b) { return __float2bfloat16(__bfloat162float(a) + __bfloat162float(b)); }
inline __nv_bfloat16 operator+(__nv_bfloat16 a, __nv_bfloat16 b) { return __hadd(a, b); }
inline __nv_bfloat16 __hmul(__nv_bfloat16 a, __nv_bfloat16 b) { return __float2bfloat16(__bfloat162float(a) * __bfloat162float(b)); }
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  const double product = static_cast<double>(__bfloat162float(a)) * __bfloat162float(b);
  return __float2bfloat16(static_cast<float>(product + __bfloat162float(c)));
}
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

// `asm("opcode ...")` was rewritten to a call of `ptx_opcode` with its outputs, then its inputs.
inline void ptx_mov_b32(std::uint32_t& both, std::uint16_t half) { both = half * 0x10001u; }
inline void ptx_mov_b32(std::uint16_t& low, std::uint16_t& high, std::uint32_t both) {
  low = static_cast<std::uint16_t>(both);
  high = static_cast<std::uint16_t>(both >> 16);
}
inline void ptx_cvt_f32_f16(float& to, std::uint16_t from) { to = f16_to_f32(from); }
inline void ptx_cvt_rn_f16_f32(std::uint16_t& to, float from) { to = f32_to_f16(from); }
inline void ptx_add_f16(std::uint16_t& to, std::uint16_t a, std::uint16_t b) { to = f32_to_f16(f16_to_f32(a) + f16_to_f32(b)); }
inline void ptx_mul_f16(std::uint16_t& to, std::uint16_t a, std::uint16_t b) { to = f32_to_f16(f16_to_f32(a) * f16_to_f32(b)); }
inline void ptx_fma_rn_f16(std::uint16_t& to, std::uint16_t a, std::uint16_t b, std::uint16_t c) {
  const double product = static_cast<double>(f16_to_f32(a)) * f16_to_f32(b);
  to = f32_to_f16(static_cast<float>(product + f16_to_f32(c)));
}

inline std::uint16_t low_half(std::uint32_t both) { return static_cast<std::uint16_t>(both); }
inline std::uint16_t high_half(std::uint32_t both) { return static_cast<std::uint16_t>(both >> 16); }
inline std::uint32_t both_halves(std::uint16_t low, std::uint16_t high) { return low | static_cast<std::uint32_t>(high) << 16; }

inline void ptx_add_f16x2(std::uint32_t& to, std::uint32_t a, std::uint32_t b) {
  std::uint16_t low, high;
  ptx_add_f16(low, low_half(a), low_half(b));
  ptx_add_f16(high, high_half(a), high_half(b));
  to = both_halves(low, high);
}
inline void ptx_mul_f16x2(std::uint32_t& to, std::uint32_t a, std::uint32_t b) {
  std::uint16_t low, high;
  ptx_mul_f16(low, low_half(a), low_half(b));
  ptx_mul_f16(high, high_half(a), high_half(b));
  to = both_halves(low, high);
}
inline void ptx_fma_rn_f16x2(std::uint32_t& to, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint16_t low, high;
  ptx_fma_rn_f16(low, low_half(a), low_half(b), low_half(c));
  ptx_fma_rn_f16(high, high_half(a), high_half(b), high_half(c));
  to = both_halves(low, high);
}
