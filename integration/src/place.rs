//! On which device a model runs.
use candle_core::Device;

use crate::StartError;

/// Devices as users write them.
const ALLOWED: &str = if cfg!(feature = "cuda") {
    "`auto`, `cpu`, `cuda` or `cuda:N`"
} else {
    "`auto` or `cpu` (for NVIDIA GPUs, build with the feature `cuda`)"
};

/// The device of a name: `cpu`, `cuda`, `cuda:N`, or `auto`, which is the first GPU that can be opened and else the CPU.
///
/// ```
/// assert!(mistralrs_kv::device("cpu").expect("always there").is_cpu());
/// ```
///
/// # Errors
///
/// [`StartError::OutOfRange`] for another name, a GPU that cannot be opened, or a build without the feature `cuda`.
pub fn device(name: &str) -> Result<Device, StartError> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(gpu(0).unwrap_or(Device::Cpu)),
        _ => {
            let refuse = |reason: String| StartError::OutOfRange {
                field: "device",
                value: name.to_owned(),
                allowed: format!("{ALLOWED}{reason}"),
            };
            let number = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
                None => None,
            };
            let number = number.ok_or_else(|| refuse(String::new()))?;
            gpu(number).map_err(|reason| refuse(format!("; {reason}")))
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu(number: usize) -> Result<Device, String> {
    Device::new_cuda(number)
        .map_err(|error| format!("the driver says: {}", crate::error::first_line(&error)))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> Result<Device, String> {
    Err("this build serves no GPU".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_is_named() {
        for name in ["gpu", "cuda:", "cuda:x", "cuda1", "CPU", ""] {
            let message = device(name).expect_err("no device").to_string();
            assert!(
                message.starts_with(&format!("`device` is {name}, must be `auto`")),
                "{message}"
            );
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn without_the_feature_a_gpu_is_refused_and_auto_is_the_cpu() {
        let message = device("cuda:1").expect_err("no GPU here").to_string();
        assert!(message.contains("feature `cuda`"), "{message}");
        assert!(device("auto").expect("the CPU").is_cpu());
    }
}
