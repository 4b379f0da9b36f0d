// CUDA C++ on the CPU: what a kernel source includes instead of the CUDA headers.
//
// Every thread of a block is a fiber, blocks run one after another, and every access to memory passes through a race detector.
// The library behind this header is in `src/cpp`; nothing here needs CUDA.
#pragma once

#include "cuda_host_shim/runtime.h"
#include "cuda_host_shim/types.h"
#include "cuda_host_shim/sync.h"
#include "cuda_host_shim/atomics.h"
#include "cuda_host_shim/numbers.h"
#include "cuda_host_shim/half.h"
#include "cuda_host_shim/entry.h"
