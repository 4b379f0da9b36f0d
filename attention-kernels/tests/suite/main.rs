//! The ops against their definition, through the public interface only.
//!
//! Every run draws a fresh seed and prints it where a test fails. `HEADROOM_SEED=<number>` repeats a run.

mod attend;
mod attend_prompt;
mod bits;
mod errors;
mod levels;
mod memory;
mod observe;
mod observe_bits;
mod observe_errors;
mod observed;
mod prompts;
mod shift;
mod shift_errors;
mod world;
mod write;
