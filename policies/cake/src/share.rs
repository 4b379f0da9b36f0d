//! A budget shared out among layers, in whole tokens.

/// Shares `total` out in proportion to what the layers report, as the authors do: fractions are cut off; what a layer gets
/// beyond the `longest` prefix goes to the others in equal parts, and so does what the fractions come to, each time the odd
/// tokens to the first of them. That may take a layer beyond `longest` again, which then keeps the whole prefix and
/// leaves the rest unused. Where the reports say nothing the shares are equal.
pub(crate) fn share(reports: &[f64], total: usize, longest: usize) -> Vec<usize> {
    let sum: f64 = reports.iter().sum();
    let is_told = sum.is_finite() && sum > 0.0 && reports.iter().all(|&report| report >= 0.0);
    let equal = 1.0 / as_float(reports.len());
    let part = |&report: &f64| {
        let part = if is_told { report / sum } else { equal };
        whole(part * as_float(total))
    };
    let mut shares: Vec<usize> = reports.iter().map(part).collect();
    let excess = shares
        .iter()
        .map(|share| share.saturating_sub(longest))
        .sum();
    for share in &mut shares {
        *share = longest.min(*share);
    }
    spread(&mut shares, excess, longest);
    let spent: usize = shares.iter().sum();
    spread(&mut shares, total.saturating_sub(spent), longest);
    shares
}

/// Adds `amount` to the shares below `longest`, equally, and the odd tokens to the first of them.
fn spread(shares: &mut [usize], amount: usize, longest: usize) {
    let open = shares.iter().filter(|&&share| share < longest).count();
    if open == 0 {
        return;
    }
    let (each, odd) = (amount / open, amount % open);
    let below = shares.iter_mut().filter(|share| **share < longest);
    for (index, share) in below.enumerate() {
        *share += each + usize::from(index < odd);
    }
}

#[expect(clippy::cast_precision_loss, reason = "tokens are far below 2^52")]
const fn as_float(tokens: usize) -> f64 {
    tokens as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a total, which is not negative and is to be cut off"
)]
const fn whole(tokens: f64) -> usize {
    tokens as usize
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use serde::Deserialize;

    use super::share;

    #[test]
    fn odd_tokens_go_to_the_first_and_a_full_layer_gives_to_the_others() {
        assert_eq!(share(&[1.0, 1.0, 1.0], 10, 10), [4, 3, 3]);
        // 16, 2, 2 of 20: the first is full at 8 and gives 4 to each of the others.
        assert_eq!(share(&[8.0, 1.0, 1.0], 20, 8), [8, 6, 6]);
        // 19, 0, 0 of 20: 11 over are 6 and 5, and the fraction's token goes to the second layer.
        assert_eq!(share(&[98.0, 1.0, 1.0], 20, 8), [8, 7, 5]);
        // A total that is more than all prefixes.
        assert_eq!(share(&[1.0, 2.0], 20, 5), [5, 5]);
    }

    #[test]
    fn reports_that_say_nothing_share_equally() {
        for reports in [
            [0.0, 0.0],
            [f64::NAN, 1.0],
            [f64::INFINITY, 1.0],
            [-1.0, 2.0],
        ] {
            assert_eq!(share(&reports, 9, 100), [5, 4]);
        }
    }

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        preferences: Vec<f64>,
        total: usize,
        longest: usize,
        shares: Vec<usize>,
    }

    #[test]
    fn the_authors_shares() {
        let text = include_str!("../testdata/shares.json");
        let golden: Golden = serde_json::from_str(text).expect("a file of cases");
        assert_eq!(golden.cases.len(), 92);
        for case in golden.cases {
            let found = share(&case.preferences, case.total, case.longest);
            assert_eq!(
                found, case.shares,
                "{:?} of {}",
                case.preferences, case.total
            );
        }
    }

    /// What many random runs of a cascade of 32 layers with a window of 32 came to.
    #[derive(Debug, Default)]
    struct Rises {
        /// Runs in which a layer was to get more than it still held.
        runs: usize,
        /// The most that was missing in one layer.
        most: usize,
        /// Tokens left unused, as a share of the total, on average.
        unused: f64,
    }

    /// Preferences are log-normal: `exp(sigma z)`.
    fn rises(sigma: f64, cap: usize, prompt: usize, rng: &mut impl Rng) -> Rises {
        const LAYERS: usize = 32;
        const RUNS: u32 = 300;
        let (total, longest) = ((cap - 32) * LAYERS, prompt - 32);
        let mut met = Rises::default();
        for _ in 0..RUNS {
            let reports: Vec<f64> = (0..LAYERS).map(|_| (sigma * normal(rng)).exp()).collect();
            let mut held = vec![longest; LAYERS];
            let mut most = 0;
            for layer in 0..LAYERS {
                let shares = share(&reports[..=layer], total, longest);
                for (held, share) in held.iter_mut().zip(shares) {
                    most = most.max(share.min(longest).saturating_sub(*held));
                    *held = share.min(*held);
                }
            }
            let unused = total - held.iter().sum::<usize>();
            met.runs += usize::from(most > 0);
            met.most = met.most.max(most);
            met.unused += super::as_float(unused) / super::as_float(total) / f64::from(RUNS);
        }
        met
    }

    /// From `HEADROOM_SEED`, else a fresh seed, which is printed where a test fails.
    fn dice() -> ChaCha8Rng {
        let fresh = || RandomState::new().hash_one("headroom");
        let seed: u64 = std::env::var("HEADROOM_SEED").map_or_else(
            |_| fresh(),
            |text| text.parse().expect("HEADROOM_SEED is a number"),
        );
        eprintln!("HEADROOM_SEED={seed} repeats this run");
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// A normal number, by the method of Box and Muller.
    fn normal(rng: &mut impl Rng) -> f64 {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    #[test]
    fn shares_rise_where_the_layers_differ_much() {
        let mut rng = dice();
        let even = rises(0.3, 128, 2000, &mut rng);
        let uneven = rises(1.0, 128, 2000, &mut rng);
        let wild = rises(2.0, 1024, 8000, &mut rng);
        eprintln!("{even:?}\n{uneven:?}\n{wild:?}");
        // Of 300 runs; the seeds differ by a few in a hundred.
        assert!(even.runs < 15 && even.most < 5, "{even:?}");
        assert!((200..295).contains(&uneven.runs), "{uneven:?}");
        assert!(uneven.unused < 0.001, "{uneven:?}");
        assert!((170..285).contains(&wild.runs), "{wild:?}");
        assert!((0.001..0.05).contains(&wild.unused), "{wild:?}");
    }

    #[test]
    fn the_total_is_never_exceeded() {
        let mut rng = dice();
        for _ in 0..2000 {
            let layers = rng.random_range(1..40);
            let reports: Vec<f64> = (0..layers).map(|_| normal(&mut rng).exp()).collect();
            let (total, longest) = (rng.random_range(0..4000), rng.random_range(1..3000));
            let shares = share(&reports, total, longest);
            assert!(
                shares.iter().sum::<usize>() <= total,
                "{reports:?} of {total}"
            );
        }
    }
}
