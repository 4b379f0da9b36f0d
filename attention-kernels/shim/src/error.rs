//! What a launch can refuse or find.

/// Why a launch did not happen, or what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No kernel has this name.
    #[error("no entry is called `{entry}`; there are {known:?}")]
    UnknownEntry {
        /// Name asked for.
        entry: String,
        /// All names.
        known: Vec<String>,
    },

    /// More or fewer arguments than the kernel has parameters.
    #[error("`{entry}` has {expected} parameters, got {got} arguments")]
    ArgumentCount {
        /// Name of the kernel.
        entry: String,
        /// Parameters of the kernel.
        expected: usize,
        /// Arguments passed.
        got: usize,
    },

    /// A kernel with more parameters than the shim passes on.
    #[error("`{entry}` has {parameters} parameters, at most {limit} are passed")]
    ParametersTooMany {
        /// Name of the kernel.
        entry: String,
        /// Parameters of the kernel.
        parameters: usize,
        /// Parameters allowed.
        limit: usize,
    },

    /// A grid or block of a shape that CUDA refuses, or a grid too large to run here.
    #[error("a {what} of {shape:?} is not allowed: {allowed}")]
    ShapeOutOfRange {
        /// `grid` or `block`.
        what: &'static str,
        /// Shape passed.
        shape: [u32; 3],
        /// What is allowed.
        allowed: &'static str,
    },

    /// More dynamic shared memory than a block can have.
    #[error("{bytes} bytes of dynamic shared memory were asked for, a block has at most {limit}")]
    SharedMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },

    /// The kernel ran, and did something wrong. Findings that differ in the thread only are told once; there are at most 100.
    #[error("{} finding(s):\n{}", .0.len(), .0.join("\n"))]
    Findings(Vec<String>),
}
