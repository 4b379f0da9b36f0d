// Arithmetic that CUDA offers without a header. Approximations are computed as well as the host's library does.
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
inline int __clzll(long long bits) { return bits == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(bits)); }

namespace kv_shim {

template <class To, class From>
inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits on both sides");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace kv_shim

inline unsigned __float_as_uint(float number) { return kv_shim::same_bits<unsigned>(number); }
inline int __float_as_int(float number) { return kv_shim::same_bits<int>(number); }
inline float __uint_as_float(unsigned bits) { return kv_shim::same_bits<float>(bits); }
inline float __int_as_float(int bits) { return kv_shim::same_bits<float>(bits); }

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int __float2int_rn(float x) { return static_cast<int>(lrintf(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }

// Of a NaN and a number, the number; of signed and unsigned, the unsigned.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

#define KV_SHIM_MIN_MAX(A, B, R)                                                                                  \
  inline R min(A a, B b) { return static_cast<R>(a) < static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b); } \
  inline R max(A a, B b) { return static_cast<R>(a) < static_cast<R>(b) ? static_cast<R>(b) : static_cast<R>(a); }

KV_SHIM_MIN_MAX(int, int, int)
KV_SHIM_MIN_MAX(unsigned, unsigned, unsigned)
KV_SHIM_MIN_MAX(int, unsigned, unsigned)
KV_SHIM_MIN_MAX(unsigned, int, unsigned)
KV_SHIM_MIN_MAX(long, long, long)
KV_SHIM_MIN_MAX(unsigned long, unsigned long, unsigned long)
KV_SHIM_MIN_MAX(long long, long long, long long)
KV_SHIM_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)

#undef KV_SHIM_MIN_MAX
