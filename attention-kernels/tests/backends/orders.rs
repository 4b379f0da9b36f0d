//! The order in which blocks, warps and threads run changes no bit.

use attention_kernels::cuda::Device;
use cuda_host_shim::Order;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::host_shim;
use crate::suite::Cuda;
use crate::suite::bits::everything;
use crate::world::rng;

fn bits<D: Device>(device: D, rng: &ChaCha8Rng) -> Vec<u32> {
    everything(&Cuda(device), &mut rng.clone())
}

#[test]
#[cfg(feature = "emulator")]
fn of_the_emulator() {
    use attention_kernels::cuda::{Emulated, PTX};
    use ptx_emulator::{Options, Order};

    let mut rng = rng(0x191);
    let in_order = |order, rng| {
        let options = Options {
            order,
            ..Options::default()
        };
        let device = Emulated::with_ptx(PTX, options);
        bits(device.expect("the shipped PTX is PTX"), rng)
    };
    let shuffled = [(); 2].map(|()| Order::Shuffled(rng.random()));
    let want = in_order(Order::Ascending, &rng);
    for order in [Order::Descending, shuffled[0], shuffled[1]] {
        assert!(in_order(order, &rng) == want, "{order:?}");
    }
}

#[test]
fn of_the_shim() {
    let mut rng = rng(0x192);
    let random = Order::Random(rng.random());
    let Some(device) = host_shim::connect(Order::Ascending) else {
        return;
    };
    let want = bits(device, &rng);
    for order in [Order::Descending, random] {
        let device = host_shim::connect(order).expect("it was there");
        assert!(bits(device, &rng) == want, "{order:?}");
    }
}
