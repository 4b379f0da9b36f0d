//! Pages on a device: the engine and the runtime as they are, with a machine for a GPU that interprets the shipped CUDA kernels
//! and checks every access.
mod common;

use candle_core::DType;
use common::{
    Weights,
    gpu::EmulatedGpu,
    host::{Host, LAYERS, Machine, remembered, spec},
    smollm, start, tiny,
};
use kv_core::Budget;
use kv_hook::KvRuntime;
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Report, Request, Runtime, policies};

/// What a device does not serve: it is refused by name.
const HOST_ONLY: [&str; 4] = ["cake", "fast-gen", "la-cache", "tova"];

/// Every policy of the build that a device serves, with settings that make it evict, and some more that take other ways through the device.
fn configs() -> Vec<(String, CacheConfig)> {
    let registry = policies();
    let served = registry.names().filter(|name| !HOST_ONLY.contains(name));
    let named: Vec<String> = served.map(str::to_owned).collect();
    let mut all: Vec<(String, CacheConfig)> = named
        .iter()
        .map(|name| {
            let config = CacheConfig::new(name);
            let config = match name.as_str() {
                "keep-all" => config,
                "duo-attention" => config.set("sinks", 2).set("recent", 20),
                "snap-stream" => config.budget(Budget::Tokens(40)).set("recent", 8),
                _ => config.budget(Budget::Tokens(40)),
            };
            (name.clone(), config)
        })
        .collect();
    if named.iter().any(|name| name == "ada-kv") {
        let ada = || CacheConfig::new("ada-kv").budget(Budget::Tokens(40));
        // Ranked on the host, by scores that are fetched; and evicting afterwards by those on the device.
        all.push(("ada-kv mix".into(), ada().set("safeguard", "mix")));
        all.push((
            "ada-kv evict".into(),
            ada().set("score", "accumulated").set("decode", "evict"),
        ));
    }
    let pinned = CacheConfig::new("h2o").budget(Budget::Tokens(40));
    all.push(("h2o with pins".into(), pinned.pin_prefix(7)));
    all
}

/// Outputs of all passes, and what is held at the end.
fn run(machine: Machine, config: &CacheConfig, seed: u64) -> (Vec<Vec<f32>>, Vec<Vec<Vec<usize>>>) {
    let mut host = Host::on(machine, config.clone(), DType::F32, seed);
    let mut sequences = vec![remembered(1), remembered(2)];
    let mut outputs = Vec::new();
    for (sequence, prompt) in sequences.iter_mut().zip([90, 53]) {
        host.pass(std::slice::from_mut(sequence), prompt, true);
    }
    for _ in 0..12 {
        let steps = host.pass(&mut sequences, 1, false);
        outputs.extend(steps.into_iter().map(|step| step.output));
    }
    let mut reports = host.runtime.open_sequences();
    reports.sort_by_key(|report| report.seq);
    let kept = reports.into_iter().map(|report| report.kept).collect();
    (outputs, kept)
}

/// Largest difference of two runs, relative to the largest number; infinite where they keep different numbers of tokens.
fn difference(config: &CacheConfig, seed: u64) -> f64 {
    let (cpu, cpu_kept) = run(Machine::Cpu, config, seed);
    let (gpu, gpu_kept) = run(Machine::EmulatedGpu, config, seed);
    if cpu_kept != gpu_kept {
        return f64::INFINITY;
    }
    let pairs = || cpu.iter().flatten().zip(gpu.iter().flatten());
    let size = pairs().map(|(a, _)| f64::from(a.abs())).fold(0.0, f64::max);
    let off = pairs()
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max);
    off / size
}

/// As [`configs`], for a host that has no model's files.
fn without_files() -> Vec<(String, CacheConfig)> {
    let mut all = configs();
    all.retain(|(name, _)| name != "critical-kv");
    all
}

#[test]
fn what_a_device_does_not_serve_is_refused_by_name() {
    let registry = policies();
    for name in registry.names().filter(|name| HOST_ONLY.contains(name)) {
        let config = CacheConfig::new(name).budget(Budget::Tokens(40));
        let runtime = Runtime::on_device(config, EmulatedGpu::new());
        let refused = runtime.open_pool(&spec(DType::F32)).err();
        let said = refused.expect("not on a device").to_string();
        assert!(said.contains(name) && said.contains("on the CPU"), "{said}");
    }
}

#[test]
fn prompts_are_not_read_in_chunks_nor_keys_moved_on_a_device() {
    let streaming = || CacheConfig::new("streaming-llm").budget(Budget::Tokens(40));
    let cases = [
        (streaming().prefill_chunk(64), "prefill-chunk"),
        (
            streaming().set("positions", "cache-relative"),
            "cache-relative positions",
        ),
    ];
    for (config, what) in cases {
        let runtime = Runtime::on_device(config, EmulatedGpu::new());
        let refused = runtime.open_pool(&spec(DType::F32)).err();
        let said = refused.expect("not on a device").to_string();
        assert!(said.contains(what) && said.contains("CPU"), "{said}");
    }
}

#[test]
fn caches_of_finished_turns_are_not_kept_on_a_device() {
    let config = CacheConfig::new("keep-all").keep_turns(64);
    let runtime = Runtime::on_device(config, EmulatedGpu::new());
    let refused = runtime.open_pool(&spec(DType::F32)).err();
    let said = refused.expect("not on a device").to_string();
    assert!(
        said.contains("keep-turns-mb") && said.contains("64"),
        "{said}"
    );
}

/// What differs between the two is the rounding of scores and sums, so a token may be taken for another only if their scores are
/// within some 1e-6 of each other. That can happen once; it does not happen with two seeds.
#[test]
fn every_policy_does_on_the_device_what_it_does_on_the_host() {
    for (name, config) in without_files() {
        let seeds: [u64; 2] = rand::random();
        let off = seeds.map(|seed| difference(&config, seed));
        assert!(
            off[0] <= 1e-5 || off[1] <= 1e-5,
            "{name} differs by {off:?} (seeds {seeds:?})"
        );
    }
}

/// A decode step brings nothing to the host but its result: victims and scores stay where they are.
#[test]
fn a_decode_step_makes_no_round_trip() {
    for (name, config) in without_files() {
        let gpu = EmulatedGpu::new();
        let runtime = Runtime::on_device(config, gpu.clone());
        let mut host = Host::over(runtime, DType::F32, 1);
        let mut sequences = vec![remembered(1), remembered(2)];
        for sequence in &mut sequences {
            host.pass(std::slice::from_mut(sequence), 90, true);
        }
        let before = host.runtime.stats().expect("open").kernels;
        gpu.take_downloaded();
        gpu.take_launches();
        host.pass(&mut sequences, 1, false);
        assert_eq!(
            gpu.take_downloaded(),
            0,
            "{name} downloads in a decode step"
        );
        let after = host.runtime.stats().expect("open").kernels;
        assert_eq!(
            after.tables - before.tables,
            1,
            "{name}: one upload for all layers"
        );
        let layer = ["kv_append_f32", "kv_attend_g4_f32", "kv_merge_f32"];
        assert_eq!(
            gpu.take_launches(),
            layer.repeat(LAYERS),
            "{name}: one launch of each for two sequences"
        );
    }
}

async fn answer(
    config: &EngineConfig,
    runtime: Option<std::sync::Arc<Runtime>>,
    prompt: Prompt,
    tokens: usize,
) -> Report {
    let engine = match runtime {
        None => start(config.clone()).await,
        Some(runtime) => config
            .start_with(Some(runtime))
            .await
            .expect("the engine starts"),
    };
    let answer = engine.generate(Request::greedy(prompt, tokens)).await;
    let answer = answer.unwrap_or_else(|error| panic!("it answers: {error:#}"));
    let report = engine
        .report(answer.text)
        .expect("a report")
        .expect("a policy");
    let pool = engine
        .runtime()
        .expect("a policy")
        .stats()
        .expect("open")
        .pool;
    assert_eq!((pool.held, pool.promised), (0, 0));
    report
}

/// The engine itself, with a tiny random model: the same text and the same pages from both.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_runs_with_its_cache_on_a_device() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 1);
    let prompt: Vec<u32> = (0..100).map(|i| i * 7 % (tiny::VOCABULARY - 1)).collect();
    for (name, cache) in configs() {
        let config = common::engine(model.clone(), Some(cache.clone()));
        let prompt = || Prompt::Tokens(prompt.clone());
        let cpu = answer(&config, None, prompt(), 20).await;
        let runtime = Runtime::on_device(cache, EmulatedGpu::new());
        let gpu = answer(&config, Some(runtime), prompt(), 20).await;
        assert_eq!(gpu.text, cpu.text, "{name}");
        assert_eq!(gpu.kept, cpu.kept, "{name}");
    }
}

/// A real model through mistral.rs, its cache kept and read by the CUDA kernels: real text, real pages freed.
#[tokio::test(flavor = "multi_thread")]
async fn smollm_answers_from_a_cache_on_a_device() {
    let question = "Name three rivers in Europe and say in one sentence each where they rise and which sea they reach.";
    for policy in ["streaming-llm", "h2o"] {
        let cache = CacheConfig::new(policy).budget(Budget::Tokens(32));
        // In 8 bits the engine rounds its activations, and a last bit of attention can become another word.
        let config = common::engine(smollm(Weights::F32), Some(cache.clone()));
        let cpu = answer(&config, None, Prompt::chat(question), 12).await;
        let runtime = Runtime::on_device(cache, EmulatedGpu::new());
        let gpu = answer(&config, Some(runtime), Prompt::chat(question), 12).await;
        assert!(!gpu.text.trim().is_empty());
        assert!(gpu.pages_held_peak < gpu.pages_full);
        assert_eq!(gpu.kept, cpu.kept, "{policy}");
        assert_eq!(gpu.text, cpu.text, "{policy}");
    }
}
