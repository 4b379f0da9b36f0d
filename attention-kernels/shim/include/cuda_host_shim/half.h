// f16 and bf16 by their bits. Rounding is to nearest, ties to even; a NaN becomes 0x7fff, as CUDA's conversions make it.
#pragma once

#include <cstdint>

#include "numbers.h"

inline float bf16_to_f32(std::uint16_t bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }

inline std::uint16_t f32_to_bf16(float number) {
  const unsigned bits = __float_as_uint(number);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  // Half of the last place that stays, less one where that place is even: a tie then goes down.
  const unsigned round = 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<std::uint16_t>((bits + round) >> 16);
}

inline float f16_to_f32(std::uint16_t bits) {
  const unsigned sign = (bits & 0x8000u) << 16;
  const unsigned exponent = (bits >> 10) & 0x1fu;
  const unsigned fraction = bits & 0x3ffu;
  if (exponent == 0) {
    // Zero or subnormal: `fraction` units of 2^-24, which f32 holds exactly.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return __uint_as_float(sign | __float_as_uint(magnitude));
  }
  if (exponent == 0x1f) return __uint_as_float(sign | 0x7f800000u | (fraction << 13));
  return __uint_as_float(sign | ((exponent + 112) << 23) | (fraction << 13));
}

namespace kv_shim {

// `value / 2^shift`, to nearest, ties to even.
inline unsigned shift_right_rounded(unsigned value, unsigned shift) {
  const unsigned kept = value >> shift;
  const unsigned rest = value & ((1u << shift) - 1);
  const unsigned half = 1u << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
}

}  // namespace kv_shim

inline std::uint16_t f32_to_f16(float number) {
  const unsigned bits = __float_as_uint(number);
  const unsigned sign = (bits >> 16) & 0x8000u;
  const unsigned magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  // 65520 lies halfway between the largest f16 and 2^16.
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  const unsigned exponent = magnitude >> 23;
  // From 2^-14 on, rebias and drop 13 bits. A carry out of the fraction rightly raises the exponent.
  if (exponent > 112) return static_cast<std::uint16_t>(sign | kv_shim::shift_right_rounded(magnitude - (112u << 23), 13));
  // Below half of the smallest subnormal.
  if (exponent < 102) return static_cast<std::uint16_t>(sign);
  const unsigned significand = (magnitude & 0x7fffffu) | 0x800000u;
  return static_cast<std::uint16_t>(sign | kv_shim::shift_right_rounded(significand, 126 - exponent));
}
