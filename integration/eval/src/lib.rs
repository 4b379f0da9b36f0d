//! What a compressed cache is asked, and how its answers are counted. Nothing here knows an engine.
//!
//! A [`tasks::Item`] is a text that is compressed, and turns behind it that are read through what is left. [`score`] turns the model's logits behind them
//! into figures for each token, and [`stats`] many figures into one with its uncertainty. [`baselines`] are the policies that every method is
//! to be compared with.
#![forbid(unsafe_code)]

pub mod baselines;
pub mod score;
pub mod stats;
pub mod tasks;
