// In place of CUDA's header; `engine_compat.h` has what is used of it.
