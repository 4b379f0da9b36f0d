//! One request, timed where its logits come out.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use attention_kernels::read_bandwidth;
use cpu_time::ProcessTime;
use mistralrs_kv::{Engine, EngineConfig, KernelCalls, Prompt, Request, Stats};

use super::random::Numbers;

/// How long the engine may take to give pages back.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// A model that is loaded, and knows how many tokens it has.
#[derive(Debug)]
pub(super) struct Target {
    engine: Engine,
    vocabulary: u32,
}

/// A request to time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Decode steps after it.
    pub(super) steps: usize,
    /// Which of several prompts of this length.
    pub(super) round: usize,
}

/// What a request took. Times are in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// From the request to the first token's logits.
    pub(super) prefill: f64,
    /// A decode step: the median.
    pub(super) step: f64,
    /// Of all processors, for the whole request.
    pub(super) cpu: f64,
    /// What the runtime did of it; none without a policy.
    pub(super) cache: Option<CacheTiming>,
}

/// What the runtime says of a request. Times are in seconds, and 0 on a device, for which nothing waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheTiming {
    /// Attention over the prompt.
    pub(super) attend_prompt: f64,
    /// What the policy took of the prompt's time beside that: observing and planning.
    pub(super) plan_prompt: f64,
    /// Whether the prompt was observed.
    pub(super) observes_prompt: bool,
    /// Attention of a decode step: the median.
    pub(super) attend: f64,
    /// What the policy took of a decode step beside that: the median.
    pub(super) plan_step: f64,
    /// Entering and writing the new token of a decode step: the median.
    pub(super) write: f64,
    /// Whether decode steps were observed.
    pub(super) observes_steps: bool,
    /// Tokens that a decode step read in all heads: the mean.
    pub(super) tokens: f64,
    /// Bytes of the key and the value of one of them.
    pub(super) token_bytes: usize,
    /// Tokens held by all heads at the end, in bytes.
    pub(super) kept_bytes: usize,
    /// Pages held at the end, and their bytes.
    pub(super) pages: usize,
    pub(super) page_bytes: usize,
    /// Most pages ever held at once, when the prompt had been read.
    pub(super) prompt_peak: usize,
    /// Pages that the prompt takes in full.
    pub(super) prompt_full: usize,
}

impl CacheTiming {
    /// Bytes of K and V that a decode step reads.
    pub(super) fn step_bytes(&self) -> f64 {
        self.tokens * float(self.token_bytes)
    }
}

/// The same request several times.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<Timing>);

impl Runs {
    /// The median of something.
    pub(super) fn median(&self, of: impl Fn(&Timing) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }

    /// The median of something that the runtime says; none without a policy.
    pub(super) fn cache(&self, of: impl Fn(&CacheTiming) -> f64) -> Option<f64> {
        let told = self.0.iter().map(|timing| Some(of(timing.cache.as_ref()?)));
        told.collect::<Option<Vec<f64>>>().map(median)
    }

    /// As [`Runs::cache`], where a policy is known to run.
    pub(super) fn under_policy(&self, of: impl Fn(&CacheTiming) -> f64) -> Result<f64> {
        self.cache(of).context("the engine runs without a policy")
    }
}

/// When logits came, and how the runtime was doing then.
#[derive(Debug)]
struct Stamp {
    at: Instant,
    stats: Option<Stats>,
}

impl Target {
    /// Loads a model and lets it answer once.
    pub(super) async fn start(config: &EngineConfig) -> Result<Self> {
        let config = EngineConfig {
            // What a model says is not what is measured.
            ignore_eos: true,
            ..config.clone()
        };
        let engine = config.start().await?;
        let seen = Arc::new(Mutex::new(0));
        let told = seen.clone();
        let request =
            Request::greedy(Prompt::Tokens(vec![0; 8]), 2).with_logits(move |logits, _| {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = logits.elem_count();
                Ok(logits.clone())
            });
        engine.generate(request).await?;
        let tokens = *seen.lock().unwrap_or_else(PoisonError::into_inner);
        let vocabulary = u32::try_from(tokens).unwrap_or(u32::MAX);
        ensure!(vocabulary > 0, "the engine shows no logits");
        Ok(Self { engine, vocabulary })
    }

    /// The longest text of the model.
    pub(super) const fn max_positions(&self) -> usize {
        self.engine.max_positions()
    }

    /// Sends one request and times it.
    pub(super) async fn time(&self, load: Load) -> Result<Timing> {
        self.wait();
        let stamps = Arc::new(Mutex::new(Vec::with_capacity(load.steps + 1)));
        let (told, runtime) = (stamps.clone(), self.engine.runtime().cloned());
        let request = Request::greedy(Prompt::Tokens(self.tokens(load)), load.steps + 1)
            .with_logits(move |logits, _| {
                let at = Instant::now();
                let stats = runtime.as_ref().and_then(|runtime| runtime.stats());
                let mut stamps = told.lock().unwrap_or_else(PoisonError::into_inner);
                stamps.push(Stamp { at, stats });
                Ok(logits.clone())
            });
        let start = self.stamp();
        let processors = ProcessTime::now();
        self.engine.generate(request).await?;
        let cpu = processors.elapsed().as_secs_f64();
        self.wait();
        let mut stamps =
            std::mem::take(&mut *stamps.lock().unwrap_or_else(PoisonError::into_inner));
        if stamps.len() <= load.steps {
            bail!(
                "{} tokens came for a prompt of {} tokens, and {} were asked for",
                stamps.len(),
                load.prompt,
                load.steps + 1
            );
        }
        // The engine may be at one step more before it sees that the answer is complete.
        stamps.truncate(load.steps + 1);
        let first = stamps[0].at - start.at;
        let steps = stamps.windows(2).map(|pair| pair[1].at - pair[0].at);
        Ok(Timing {
            prefill: first.as_secs_f64(),
            step: median(steps.map(|step| step.as_secs_f64()).collect()),
            cpu,
            cache: self.cache_timing(load, &start, &stamps),
        })
    }

    /// Lets the engine end what it is at.
    fn wait(&self) {
        // Where it takes longer, the next request waits for it.
        let _ = self
            .engine
            .runtime()
            .is_none_or(|runtime| runtime.wait_ended(CLEAN_UP));
    }

    fn stamp(&self) -> Stamp {
        let stats = self.engine.runtime().and_then(|runtime| runtime.stats());
        let at = Instant::now();
        Stamp { at, stats }
    }

    /// Tokens that no other request has, so that no prefix of it is in any cache.
    fn tokens(&self, load: Load) -> Vec<u32> {
        let seed = ((load.prompt as u64) << 16) | load.round as u64;
        let mut numbers = Numbers::new(seed);
        (0..load.prompt)
            .map(|_| numbers.below(self.vocabulary))
            .collect()
    }

    fn cache_timing(&self, load: Load, start: &Stamp, stamps: &[Stamp]) -> Option<CacheTiming> {
        let geometry = self.engine.runtime()?.geometry()?;
        let before = start.stats.as_ref()?;
        let stats: Option<Vec<&Stats>> = stamps.iter().map(|stamp| stamp.stats.as_ref()).collect();
        let stats = stats?;
        let (first, last) = (*stats.first()?, *stats.last()?);
        let pairs = || stats.windows(2).map(|pair| (pair[0], pair[1]));
        let attend = pairs().map(|(a, b)| (b.time.attend - a.time.attend).as_secs_f64());
        let plan = pairs().map(|(a, b)| policy_time(b) - policy_time(a));
        let write = pairs().map(|(a, b)| (b.time.write - a.time.write).as_secs_f64());
        let read = stats.iter().skip(1);
        let read: Vec<f64> = read
            .map(|stats| float(stats.resident.iter().sum()))
            .collect();
        let held: usize = last.resident.iter().sum();
        Some(CacheTiming {
            attend_prompt: (first.time.attend_prompt - before.time.attend_prompt).as_secs_f64(),
            plan_prompt: policy_time(first) - policy_time(before),
            observes_prompt: observations(&first.kernels) > observations(&before.kernels),
            attend: median(attend.collect()),
            plan_step: median(plan.collect()),
            write: median(write.collect()),
            observes_steps: last.kernels.attend_observed > first.kernels.attend_observed,
            tokens: read.iter().sum::<f64>() / float(read.len().max(1)),
            token_bytes: last.token_bytes,
            kept_bytes: held * last.token_bytes,
            pages: last.pool.held,
            page_bytes: last.pool.held * last.page_bytes,
            prompt_peak: first.pool.peak,
            prompt_full: geometry.full_pages(load.prompt),
        })
    }
}

/// Seconds that a policy took beside attention, so far.
fn policy_time(stats: &Stats) -> f64 {
    let time = &stats.time;
    (time.observe + time.plan + time.note).as_secs_f64()
}

/// Observations of prompts so far.
const fn observations(calls: &KernelCalls) -> u64 {
    calls.observe_window + calls.observe_accumulated + calls.key_norms
}

/// Times every load `rounds` times, one after the other in each round: what slows the machine down for a while slows all. `say` is
/// told what comes.
pub(super) async fn interleave(
    loads: &[(&Target, Load)],
    rounds: usize,
    say: impl Fn(&str),
) -> Result<Vec<Runs>> {
    let mut runs: Vec<Runs> = loads.iter().map(|_| Runs::default()).collect();
    for round in 0..rounds {
        for (index, (target, load)) in loads.iter().enumerate() {
            say(&format!(
                "round {} of {rounds}, request {} of {}: a prompt of {} tokens",
                round + 1,
                index + 1,
                loads.len(),
                load.prompt
            ));
            let round = load.round + round;
            let timing = target.time(Load { round, ..*load }).await?;
            runs[index].0.push(timing);
        }
    }
    Ok(runs)
}

/// Memory that is read to see how fast that can be done.
#[derive(Debug)]
pub(super) struct Probe {
    memory: Vec<f32>,
    threads: usize,
}

impl Probe {
    /// `bytes` of memory, many times what caches hold, for as many threads as the kernels have.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            memory: vec![1.0; bytes / size_of::<f32>()],
            threads: rayon::current_num_threads(),
        }
    }

    /// Bytes per second, with `threads` threads.
    pub(super) fn with_threads(&self, threads: usize) -> f64 {
        read_bandwidth(&self.memory, threads)
    }

    /// Bytes per second.
    pub(super) fn read(&self) -> f64 {
        self.with_threads(self.threads)
    }

    /// Threads that the kernels have.
    pub(super) const fn threads(&self) -> usize {
        self.threads
    }
}

/// The middle one of some numbers, or the mean of the two in the middle; 0 of none.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.as_slice() {
        [] => 0.0,
        numbers if numbers.len() % 2 == 1 => numbers[middle],
        numbers => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

/// A count in figures.
#[expect(
    clippy::cast_precision_loss,
    reason = "far below 2^53, and shown to people"
)]
pub(super) const fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_by_hand() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
