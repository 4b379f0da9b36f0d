//! Observing a prompt takes memory in proportion to its length, not to its square.
use attention_kernels::{PromptArgs, observe_accumulated};
use kv_core::Reduction;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most bytes in use beyond those before, while a prompt of `tokens` tokens is observed.
fn peak(tokens: usize) -> usize {
    const DIM: usize = 8;
    let numbers = |count: u16| -> Vec<f32> {
        (0..tokens * DIM)
            .map(|i| f32::from(u16::try_from(i % usize::from(count)).unwrap_or(0)) / 100.0)
            .collect()
    };
    let (queries, keys) = (numbers(97), numbers(89));
    let args = PromptArgs {
        queries: &queries,
        keys: &keys,
        rows: tokens,
        tokens,
        group: 1,
        head_dim: DIM,
        scale: 0.35,
        softcap: None,
    };
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let scores = observe_accumulated(&args, Reduction::MEAN);
    assert_eq!(scores.map(|scores| scores.len()), Ok(tokens));
    MEMORY.peak_usage().saturating_sub(before)
}

#[test]
fn accumulated_attention_never_holds_the_matrix() {
    // Starts the threads, whose stacks and queues are not the kernel's.
    peak(64);
    let (short, long) = (peak(4096), peak(16_384));
    let matrix = 16_384 * 16_384 * size_of::<f32>();
    assert!(long < matrix / 20, "{long} bytes, the matrix has {matrix}");
    assert!(
        long < 6 * short,
        "four times the tokens took {long} bytes after {short}"
    );
}
