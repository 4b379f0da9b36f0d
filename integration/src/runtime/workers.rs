//! The engine's thread as one of the threads that work for it.
//!
//! candle and the kernels share their work among the threads of a rayon pool. For a thread outside the pool every such share is a parcel that
//! is handed over a lock, with a sleep until it is done, and candle hands over one for every row of every product: more than 200 times for a
//! token of a small model, 200 times 1,000 for a prompt of 1,000. A thread of the pool works on its own share and hands over only what another
//! is free to take. The results are the same, bit for bit: who computes a number changes nothing in how it is computed.
use std::cell::OnceCell;

use rayon::{ThreadPool, ThreadPoolBuilder};

thread_local! {
    /// The pool that this thread is the first of, once that was tried. Ends with it.
    static POOL: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
}

/// What the runtime does first when a layer comes: [`join`], and the other threads of the pool are woken. Between the engine's product and attention there
/// is time enough for them to fall asleep, and waking them takes longer than attention over a few hundred tokens; now they wake while tokens are
/// entered and written.
pub(super) fn ready() {
    join();
    if rayon::current_num_threads() > 1 {
        rayon::spawn(|| ());
    }
}

/// Makes the current thread the first of a pool of its own, as large as rayon's usual one, unless it is in a pool. All that the thread shares
/// from then on, in candle too, is shared within that pool.
fn join() {
    POOL.with(|pool| {
        pool.get_or_init(pool_of_its_own);
    });
}

fn pool_of_its_own() -> Option<ThreadPool> {
    if rayon::current_thread_index().is_some() {
        return None;
    }
    let pool = ThreadPoolBuilder::new()
        .use_current_thread()
        .thread_name(|index| format!("kv-worker-{index}"))
        .build();
    // What follows without it is slower, and the same.
    pool.inspect_err(|error| {
        tracing::warn!("the engine's thread stays outside of rayon's pool: {error}");
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rayon::prelude::*;

    use super::*;

    #[test]
    fn thread_works_in_a_pool_as_large_as_the_usual_one() {
        let usual = rayon::current_num_threads();
        let joined = thread::spawn(move || {
            assert_eq!(rayon::current_thread_index(), None);
            join();
            assert_eq!(rayon::current_thread_index(), Some(0));
            assert_eq!(rayon::current_num_threads(), usual);
            let pool = POOL.with(|pool| matches!(pool.get(), Some(Some(_))));
            join();
            let sum: u64 = (0..100_000_u64).into_par_iter().sum();
            (pool, sum)
        });
        let (pool, sum) = joined.join().expect("no panic");
        assert!(pool);
        assert_eq!(sum, 4_999_950_000);
        assert_eq!(rayon::current_thread_index(), None);
    }
}
