//! Ada-KV: the heads of a layer share its budget, and get as much of it as their scores ask for.
//!
//! Feng et al., *Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference*, 2024,
//! <https://arxiv.org/abs/2407.11550>.
//!
//! All heads' scores of a layer are ranked together. A head is given as many tokens as it has among the best of the
//! layer, tempered by a safeguard that leaves every head a part of its even share; it then keeps its own best tokens and
//! the window of newest ones. The layer's total is what even shares would come to. The score is `SnapKV`'s window score,
//! H2O's accumulated attention, or that of any policy that ranks a prompt.
#![forbid(unsafe_code)]

mod config;
mod over;
mod policy;
mod split;

pub use config::{AdaKvConfig, Decode, Safeguard, SplitRounding};
pub use policy::AdaKv;
