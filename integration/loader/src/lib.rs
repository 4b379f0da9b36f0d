//! Policies on disk: a policy that is a program of its own, asked over pipes, so that an edit of it compiles one small
//! crate and no engine.
//!
//! The author's side is one line, beside the source that the workspace would compile in:
//!
//! ```no_run
//! # mod my_policy { pub type MyConfig = kv_core::KeepAllConfig; }
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     kv_loader::serve::<my_policy::MyConfig>()
//! }
//! ```
//!
//! with a manifest that names `kv-core`, `kv-loader` and `serde`. The conformance kit tests it as it tests any other.
//! `cargo build` after an edit takes a second or two. A method over another one uses [`serve_among`].
//!
//! The host's side starts the program, checks that both speak the same version, and registers it beside the others:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut registry = kv_core::Registry::default();
//! let policy = kv_loader::load("target/release/my-policy")?;
//! policy.register(&mut registry)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What can go wrong
//!
//! The program shares no memory with its host, so whatever it does is a value here: it cannot be started, it speaks
//! another version, it ends, hangs, panics, writes what is no answer, or answers what cannot be carried out. Before a
//! policy is bound that is a [`LoadError`] or a [`ConfigError`](kv_core::ConfigError). Afterwards the policy *fails*: it
//! is never asked again, its plans keep everything, and [`DiskPolicy::failure`], [`Loaded::failure`] and the policy's
//! [`notice`](kv_core::Policy::notice) say what happened. A host fails the request.
//!
//! # The pipes
//!
//! A program reads questions on its standard input and writes answers on its standard output, one for one; its standard
//! error is the host's. It ends when its input does. A frame is `kvpf`, the length of a JSON text (4 bytes), the length of
//! the numbers behind it (8 bytes), the text, and the numbers, of 4 bytes each; all little endian.
//!
//! | question | answer |
//! |---|---|
//! | `{"hello": {protocol, abi}}`, first of all | `{"hello": {protocol, abi, name, summary, fields}}` |
//! | `{"bind": {fields, geometry, budget}}` | `{"bound": {needs, notice, ranks}}` or `{"refused": {...}}` |
//! | `{"rooms": {prompt, budget}}` | `{"rooms": [...]}`, one of each layer |
//! | `{"plan": {layer, phase, heads, prompt, budget, lens, rows}}` | `{"plan": {verbs, growth, lens}}`; the numbers are the scores that verbs bring |
//! | `{"score": {...}}`, of a policy that ranks | `{"scores": {lens}}` with `f32 [H][n]` |
//! | `{"observed": {lens}}` with `f32 [H][T]`, after the answer `"read"` to either of them | the answer to that |
//!
//! Behind a layer stand its positions in mid-decode and of a prompt that comes in chunks, `u32 [H][T]`, and of a prompt what
//! the policy's `reads` name: queries `f32 [H * G][n][D]`, keys and values `f32 [H][T][D]`, output norms `f32 [H][T]`, classes
//! `u32 [n]`, and, where `rows` does not say that they are the same as before, the rotation's cosines and sines, `f32 [P][pairs]` each.
//!
//! Every answer may be `{"panicked": text}` instead. Scores that were observed cross only if the policy reads them itself:
//! one that says `keep.top(..)` gets by without. `testdata/wire.json` has an example of every text.
//!
//! # Locks
//!
//! A policy has one lock around its program, held for a whole question, and one around the rooms that it knows; no other
//! lock is taken under either.
#![forbid(unsafe_code)]

mod error;
mod load;
mod messages;
mod plan;
mod policy;
mod rows;
mod serve;
mod session;
mod wire;

pub use error::{CallError, Failure, LoadError};
pub use load::{Loaded, load, load_within};
pub use messages::{ABI, PROTOCOL};
pub use policy::DiskPolicy;
pub use serve::{serve, serve_among};
