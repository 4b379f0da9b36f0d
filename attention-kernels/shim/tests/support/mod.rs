//! What the tests share: numbers as bytes, and seeds.
#![allow(dead_code, reason = "each test uses some of it")]

use cuda_host_shim::{Address, Shim};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A generator that prints its seed if the test panics while it lives. `HEADROOM_SEED` repeats a run.
pub(crate) struct SeededRng {
    pub(crate) rng: ChaCha8Rng,
    seed: u64,
}

impl SeededRng {
    pub(crate) fn new() -> Self {
        let seed = match std::env::var("HEADROOM_SEED") {
            Ok(seed) => seed.parse().expect("HEADROOM_SEED must be a number"),
            Err(_) => rand::random(),
        };
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            seed,
        }
    }
}

impl Drop for SeededRng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with HEADROOM_SEED={}", self.seed);
        }
    }
}

/// A number of a buffer.
pub(crate) trait Number: Copy {
    fn append(self, bytes: &mut Vec<u8>);
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Number for $number {
            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_ne_bytes());
            }
            fn take(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().expect("as many bytes as the number has"))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, i32, i64, f32);

pub(crate) fn bytes_of<T: Number>(numbers: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        number.append(&mut bytes);
    }
    bytes
}

pub(crate) fn numbers_of<T: Number>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(T::take).collect()
}

/// A buffer that holds `numbers`.
pub(crate) fn upload<T: Number>(shim: &mut Shim, numbers: &[T], name: &str) -> Address {
    let bytes = bytes_of(numbers);
    let address = shim.alloc(bytes.len(), name);
    shim.write(address, 0, &bytes);
    address
}

/// The first `count` numbers of a buffer.
pub(crate) fn download<T: Number>(shim: &Shim, address: Address, count: usize) -> Vec<T> {
    let mut bytes = vec![0; count * size_of::<T>()];
    shim.read(address, 0, &mut bytes);
    numbers_of(&bytes)
}

/// Whether kernels can run; says so if not.
pub(crate) fn available() -> bool {
    if !cuda_host_shim::is_available() {
        eprintln!("skipped: there was no C++ compiler when cuda-host-shim was built");
    }
    cuda_host_shim::is_available()
}
