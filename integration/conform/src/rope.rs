//! The angles that the references' models turn by.
use kv_core::Rotation;

/// The usual angles, `position / base^(2 i / D)` in halves, in 32 bits at every step, as the `transformers` library makes its tables:
/// queries that were turned by those are turned back exactly, also far into a text.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "32 bits are what is asked for; positions and dimensions are below 2^24"
)]
pub(crate) fn rotation(base: f64, head_dim: usize, positions: usize) -> Rotation {
    let rate = |pair: usize| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        1.0 / base.powf(f64::from(exponent)) as f32
    };
    let rates: Vec<f32> = (0..head_dim / 2).map(rate).collect();
    let angles = (0..positions).flat_map(|position| {
        let angle = move |rate: &f32| f64::from(position as f32 * rate);
        rates.iter().map(angle)
    });
    let tables = angles.map(f64::sin_cos);
    let (sin, cos) = tables.map(|(sin, cos)| (sin as f32, cos as f32)).unzip();
    Rotation::new(rates.len(), cos, sin, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_the_usual_ones_but_for_rounding() {
        let (positions, dims) = (700, 64);
        let ours = rotation(100_000.0, dims, positions);
        let exact = Rotation::of_base(100_000.0, dims, positions);
        assert_eq!(ours.positions(), positions);
        let mut differing = 0;
        for position in 0..positions {
            let (a, b) = (ours.angles(position), exact.angles(position));
            let pairs = a.0.iter().zip(b.0).chain(a.1.iter().zip(b.1));
            for (a, b) in pairs {
                assert!((a - b).abs() < 1e-4, "{a} is not {b}");
                differing += usize::from(a != b);
            }
        }
        assert!(differing > 1000, "rounded at every step");
    }
}
