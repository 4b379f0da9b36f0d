//! The shipped PTX module against what the host side believes of it.

use std::collections::BTreeMap;

use attention_kernels::cuda::PTX;
use attention_kernels::cuda::entries::{Param, TYPED, UNTYPED, expected_layout};
use ptx_emulator::{Module, ParamType};

use crate::world::DTYPES;

fn module() -> Module {
    Module::parse(PTX).expect("the shipped PTX is PTX")
}

/// Every entry exists, with these parameters, and no other does.
#[test]
fn entries_are_those_that_the_host_launches() {
    let kind = |param: &Param| match param {
        Param::Pointer => ParamType::U64,
        Param::U32 => ParamType::U32,
        Param::F32 => ParamType::F32,
    };
    let kinds = |params: &[Param]| params.iter().map(kind).collect::<Vec<_>>();
    let typed = TYPED
        .iter()
        .flat_map(|(name, params)| DTYPES.map(|dtype| (format!("{name}_{dtype}"), kinds(params))));
    let untyped = UNTYPED
        .iter()
        .map(|(name, params)| ((*name).to_owned(), kinds(params)));
    let want: BTreeMap<String, Vec<ParamType>> = typed.chain(untyped).collect();
    let module = module();
    let entries = module.entries();
    let got = entries.map(|entry| (entry.name().to_owned(), entry.params().to_vec()));
    assert_eq!(got.collect::<BTreeMap<_, _>>(), want);
    assert_eq!(module.entries().count(), want.len(), "an entry twice");
}

/// Sizes and offsets of records, and constants, are the same on both sides.
#[test]
fn records_and_constants_agree() {
    let module = module();
    let bytes = module.data("kv_layout").expect("kv_layout");
    let (words, rest) = bytes.as_chunks();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    assert!(rest.is_empty());
    assert_eq!(words, expected_layout());
}

/// What runs on every GPU from capability 8.0 on, with drivers from CUDA 11.0 on, and needs nothing but itself.
#[test]
fn it_runs_wherever_it_is_promised() {
    let module = module();
    assert_eq!((module.target(), module.version()), ("sm_80", "7.0"));
    assert!(
        !PTX.contains(".extern"),
        "something outside, or dynamic shared memory"
    );
    for entry in module.entries() {
        // A call of a function that is not there, too.
        assert_eq!(entry.unsupported(), None, "{}", entry.name());
        // What a block has without asking for more.
        assert!(entry.static_shared() <= 48 << 10, "{}", entry.name());
    }
}

/// A launch of more threads than an entry was compiled for would fail.
#[test]
fn blocks_are_as_large_as_the_kernels_say() {
    for entry in module().entries() {
        let threads = match entry.name() {
            "kv_keep" => 256,
            "kv_across_heads" => 1024,
            _ => 128,
        };
        assert_eq!(entry.max_threads(), Some(threads), "{}", entry.name());
    }
}
