//! What Prometheus is told. Names that mistral.rs itself uses mean the same here.
use std::{fmt, sync::Arc};

use axum::http::StatusCode;
use mistralrs_kv::{Runtime, Stats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

use crate::request::Endpoint;

/// What a status is called when the client has gone before its answer was complete.
const GONE: u16 = 499;

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    in_flight: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    path: &'static str,
    status: u16,
}

impl Metrics {
    pub(crate) const CONTENT_TYPE: &'static str =
        "application/openmetrics-text; version=1.0.0; charset=utf-8";

    pub(crate) fn new(runtime: Option<Arc<Runtime>>) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        registry.register(
            "mistralrs_http_requests",
            "Requests for text, by path and status; 499 where the client left before its answer was complete",
            requests.clone(),
        );
        let in_flight = Gauge::default();
        registry.register(
            "http_requests_in_flight",
            "Requests for text that are being answered",
            in_flight.clone(),
        );
        if let Some(runtime) = runtime {
            registry.register_collector(Box::new(Cache(runtime)));
        }
        Self {
            registry,
            requests,
            in_flight,
        }
    }

    /// Everything, as text.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Requests that are being answered.
    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight.get()).unwrap_or(0)
    }

    /// A request begins.
    pub(crate) fn begin(&self, endpoint: Endpoint) -> OnItsWay {
        self.in_flight.inc();
        OnItsWay {
            requests: self.requests.clone(),
            in_flight: self.in_flight.clone(),
            path: endpoint.path(),
            status: GONE,
        }
    }
}

/// A request that is being answered; counted when it is dropped.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    requests: Family<Answered, Counter>,
    in_flight: Gauge,
    path: &'static str,
    status: u16,
}

impl OnItsWay {
    /// The answer is complete.
    pub(crate) const fn complete(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.in_flight.dec();
        let answered = Answered {
            path: self.path,
            status: self.status,
        };
        self.requests.get_or_create(&answered).inc();
    }
}

/// Reads a runtime at every scrape.
#[derive(Debug)]
struct Cache(Arc<Runtime>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPolicy {
    policy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLayer {
    layer: usize,
}

impl Collector for Cache {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(stats) = self.0.stats() else {
            return Ok(()); // no engine has opened the pool
        };
        let gauges = [
            (
                "mistralrs_kv_cache_blocks_total",
                "Pages of the pool; a page holds the tokens of one block in one KV head of one layer",
                stats.pool.total,
            ),
            (
                "mistralrs_kv_cache_blocks_used",
                "Pages that sequences hold",
                stats.pool.held,
            ),
            (
                "mistralrs_kv_cache_blocks_reserved",
                "Pages that sequences were promised and do not hold yet",
                stats.pool.promised,
            ),
            (
                "mistralrs_kv_cache_blocks_full",
                "Pages that these sequences would hold if they kept everything",
                stats.pages_full,
            ),
            (
                "mistralrs_kv_cache_block_bytes",
                "Bytes of a page",
                stats.page_bytes,
            ),
            (
                "mistralrs_sequences_running",
                "Sequences that have room",
                stats.sequences,
            ),
            (
                "mistralrs_sequences_waiting",
                "Sequences in the queue for room",
                stats.waiting,
            ),
            (
                "mistralrs_kv_cache_idle_bytes",
                "Bytes of caches of finished sequences and of prefixes, kept for prompts that go on from them",
                stats.reuse.bytes,
            ),
            (
                "mistralrs_kv_cache_shared_bytes",
                "Bytes that would be held besides if no sequences and kept caches shared pages",
                stats.pages_shared * stats.page_bytes,
            ),
        ];
        for (name, help, value) in gauges {
            gauge(&mut encoder, name, help, value)?;
        }
        counters(&mut encoder, &stats)?;
        let policy = OfPolicy {
            policy: self.0.config().policy_name().to_owned(),
        };
        let evicted = [
            (
                "mistralrs_kv_cache_tokens_evicted",
                "Tokens evicted or never kept, once for every KV head of every layer that dropped one",
                stats.evicted,
            ),
            (
                "mistralrs_kv_cache_bytes_freed",
                "Bytes of the keys and values of evicted tokens",
                stats.evicted * stats.token_bytes as u64,
            ),
        ];
        for (name, help, value) in evicted {
            let counter = ConstCounter::new(value);
            let mut metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric.encode_family(&policy)?)?;
        }
        resident(&mut encoder, &stats.resident)
    }
}

fn resident(encoder: &mut DescriptorEncoder<'_>, layers: &[usize]) -> Result<(), fmt::Error> {
    let name = "mistralrs_kv_cache_resident_tokens";
    let help = "Tokens that the KV heads of a layer hold, over all sequences";
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (layer, &tokens) in layers.iter().enumerate() {
        ConstGauge::new(signed(tokens)).encode(metric.encode_family(&OfLayer { layer })?)?;
    }
    Ok(())
}

fn counters(encoder: &mut DescriptorEncoder<'_>, stats: &Stats) -> Result<(), fmt::Error> {
    let counters = [
        ("mistralrs_prompts", "Prompts read", stats.prompts),
        (
            "mistralrs_kv_cache_full",
            "Times the pool had no room for a sequence, once for each time it was asked",
            stats.refusals,
        ),
        (
            "mistralrs_preemptions",
            "Times a sequence lost its pages to others",
            stats.preemptions,
        ),
        (
            "mistralrs_preemptions_resumed",
            "Times one of them went on from its own cache",
            stats.resumed,
        ),
        (
            "mistralrs_kv_cache_reused",
            "Prompts that went on from the cache of a finished sequence or of a prefix",
            stats.reuse.hits,
        ),
        (
            "mistralrs_kv_cache_tokens_reused",
            "Tokens of prompts that were not read again",
            stats.reuse.tokens,
        ),
        (
            "mistralrs_kv_cache_idle_evicted",
            "Kept caches that were let go of, for want of room or past the limit",
            stats.reuse.evictions,
        ),
    ];
    for (name, help, value) in counters {
        let counter = ConstCounter::new(value);
        let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(metric)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: usize,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(signed(value));
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
