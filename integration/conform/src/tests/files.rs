//! A case file that can be changed before it is run.
use std::{collections::BTreeMap, fs, path::PathBuf};

use flate2::Crc;
use kv_core::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{ConformError, Outcome, Report, npy::Array, npz::Npz, run};

/// A file of cases and its arrays, to be changed and written.
pub(super) struct Files {
    folder: TempDir,
    pub(super) meta: Value,
    pub(super) cases: Vec<Value>,
    pub(super) arrays: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// The cases of these ids, from the test data.
    pub(super) fn of(ids: &[u64]) -> Self {
        let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/synth_d16_t96");
        let text = fs::read_to_string(data.with_extension("json")).expect("cases");
        let file: Value = serde_json::from_str(&text).expect("cases");
        let all = file["cases"].as_array().expect("cases").iter();
        let wanted = |case: &&Value| case["id"].as_u64().is_some_and(|id| ids.contains(&id));
        let npz = Npz::open(fs::read(data.with_extension("npz")).expect("arrays")).expect("arrays");
        let arrays = npz
            .names()
            .map(|name| (name.to_owned(), npz.get(name).expect("an array")));
        Self {
            folder: TempDir::new().expect("a folder"),
            meta: file["meta"].clone(),
            cases: all.filter(wanted).cloned().collect(),
            arrays: arrays.collect(),
        }
    }

    /// One case and its arrays.
    pub(super) fn made(case: Value, arrays: &[(&str, Vec<u8>)]) -> Self {
        let arrays = arrays.iter().cloned();
        Self {
            folder: TempDir::new().expect("a folder"),
            meta: json!({}),
            cases: vec![case],
            arrays: arrays.map(|(name, file)| (name.to_owned(), file)).collect(),
        }
    }

    pub(super) fn run(&self) -> Result<Report, ConformError> {
        let path = |name| self.folder.path().join(name);
        let cases = json!({ "meta": self.meta, "cases": self.cases }).to_string();
        fs::write(path("case.json"), cases).expect("written");
        fs::write(path("arrays.npz"), stored(&self.arrays)).expect("written");
        let mut registry = Registry::default();
        registry
            .add::<kv_policy_ada_kv::AdaKvConfig>()
            .add::<kv_policy_critical_kv::CriticalKvConfig>()
            .add::<kv_policy_expected_attention::ExpectedAttentionConfig>()
            .add::<kv_policy_h2o::H2oConfig>()
            .add::<kv_policy_k_norm::KNormConfig>()
            .add::<kv_policy_key_diff::KeyDiffConfig>()
            .add::<kv_policy_lag_kv::LagKvConfig>()
            .add::<kv_policy_pyramid_kv::PyramidKvConfig>()
            .add::<kv_policy_snap_kv::SnapKvConfig>()
            .add::<kv_policy_streaming_llm::StreamingLlmConfig>();
        run(&registry, &path("case.json"), &path("arrays.npz"))
    }

    pub(super) fn only(&self) -> Outcome {
        let report = self.run().unwrap_or_else(|error| panic!("{error}"));
        report.outcomes.into_iter().next().expect("a case")
    }

    pub(super) fn error(&self) -> String {
        let error = self.run().expect_err("an error").to_string();
        let folder = self.folder.path().to_string_lossy().into_owned() + "/";
        error.replace(&folder, "")
    }

    /// Turns bits of a case's mask, counted from its first.
    pub(super) fn flip(&mut self, array: &str, bits: &[usize]) {
        let file = self.arrays.get_mut(array).expect("a mask");
        let mask: Array<u8> = Array::parse(file).expect("a mask");
        let first = file.len() - mask.values.len();
        for bit in bits {
            file[first + bit / 8] ^= 0x80 >> (bit % 8);
        }
    }

    /// Puts the stacked layers under the numbers `layers`, one array each.
    pub(super) fn unstack(&mut self, layers: &[usize]) {
        for name in ["q", "k", "v", "o_proj_weight"] {
            let file = self.arrays.remove(name).expect("an array");
            let stacked: Array<f32> = Array::parse(&file).expect("an array");
            let rows = stacked
                .values
                .chunks(stacked.values.len() / stacked.dims[0]);
            for (layer, row) in layers.iter().zip(rows) {
                let bytes: Vec<u8> = row.iter().flat_map(|number| number.to_le_bytes()).collect();
                let array = npy("<f4", &stacked.dims[1..], &bytes);
                self.arrays.insert(format!("L{layer}_{name}"), array);
            }
        }
    }

    /// Gives a case's mask `layers` layers: its own under the numbers `own`, copies of its first elsewhere.
    pub(super) fn spread(&mut self, array: &str, layers: usize, own: &[usize]) {
        let mask: Array<u8> = Array::parse(&self.arrays[array]).expect("a mask");
        let rows: Vec<&[u8]> = mask
            .values
            .chunks(mask.values.len() / mask.dims[0])
            .collect();
        let row = |layer| own.iter().position(|&number| number == layer).unwrap_or(0);
        let bytes: Vec<u8> = (0..layers)
            .flat_map(|layer| rows[row(layer)].to_vec())
            .collect();
        let dims = [&[layers], &mask.dims[1..]].concat();
        self.arrays
            .insert(array.to_owned(), npy("|u1", &dims, &bytes));
        for case in self.cases.iter_mut().filter(|case| case["keep"] == array) {
            case["shape"][0] = layers.into();
        }
    }
}

/// A file of one array, as numpy writes it.
pub(super) fn npy(kind: &str, dims: &[usize], bytes: &[u8]) -> Vec<u8> {
    let dims: String = dims.iter().map(|dim| format!("{dim}, ")).collect();
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}\n");
    let len = u16::try_from(header.len()).expect("short").to_le_bytes();
    [
        b"\x93NUMPY\x01\x00".as_slice(),
        &len,
        header.as_bytes(),
        bytes,
    ]
    .concat()
}

/// An archive in which nothing is packed.
fn stored(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    let number = |number: usize| u32::try_from(number).expect("small").to_le_bytes();
    for (name, file) in files {
        let name = format!("{name}.npy");
        let offset = number(archive.len());
        let mut crc = Crc::new();
        crc.update(file);
        // Version, flags, method and time; sum and sizes; length of the name, and none of the rest.
        let size = number(file.len());
        let name_len = &number(name.len())[..2];
        let about = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &crc.sum().to_le_bytes()[..],
            &size,
            &size,
            name_len,
            &[0, 0],
        ];
        let about = about.concat();
        archive.extend([b"PK\x03\x04", &about[..], name.as_bytes(), file].concat());
        directory.extend(
            [
                b"PK\x01\x02\x14\x00",
                &about[..],
                &[0; 10],
                &offset,
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let count = &number(files.len())[..2];
    let end = [
        b"PK\x05\x06\0\0\0\0",
        count,
        count,
        &number(directory.len()),
        &number(archive.len()),
        &[0, 0],
    ];
    [archive, directory, end.concat()].concat()
}
