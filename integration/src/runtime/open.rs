//! Opening the pool: everything that cannot be served is refused here, at start-up.
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use attention_kernels::KvDtype;
use candle_core::{DType, Tensor};
use kv_core::{
    Budget, ConfigError, Geometry, Ledger, Needs, Observation, Positions, Reduce, Sight,
};
use kv_hook::{LayerSpec, PoolSpec};

use super::{
    Counts, Opened, Runtime, State,
    cascade::check_cadence,
    chunks::check_chunks,
    idle::Idle,
    machine::{Memory, Place},
    parking::Parking,
    parts::Sources,
    relative::is_endless,
    terms::Terms,
};
use crate::{CacheConfig, StartError};

impl Runtime {
    /// Checks the model and the policy, makes the pool, and returns what stands for each layer's cache.
    pub(super) fn open(&self, spec: &PoolSpec) -> Result<Vec<(Tensor, Tensor)>, StartError> {
        let place = self.machine.place(spec)?;
        let config = &self.config;
        let dtype = storage(spec, config, &place)?;
        let geometry = geometry(spec, dtype)?;
        let terms = Terms::new(config, &geometry)?;
        let needs = terms.needs;
        check_needs(&config.policy, &needs, &place)?;
        check_sight(&config.policy, &terms, &geometry, &place)?;
        check_chunks(config, &terms, &place)?;
        let is_endless = is_endless(&terms, &geometry);
        let idle = Idle::new(keep_turns(config, &place)?, geometry.page_bytes());
        if needs.reads.rotation || needs.positions == Positions::CacheRelative {
            kv_hook::want_rotation();
        }
        let sources = Sources::read(&config.policy, needs.reads, self.files.get(), &geometry)?;
        let pages = spec.blocks * geometry.heads();
        let cache = place.open(&Memory {
            block: geometry.block,
            head_dim: geometry.head_dim,
            dtype,
            tensor_dtype: tensor_dtype(dtype),
            pages,
            slot_state: needs.observation != Observation::None,
        })?;
        let caches = layer_names(spec)?;
        let layers = caches
            .iter()
            .enumerate()
            .map(|(layer, (key, _))| (key.id(), layer))
            .collect();
        if let Some(notice) = terms.policy.notice() {
            tracing::warn!("{}: {notice}", config.policy);
        }
        check_room(&config.policy, &geometry, &terms, pages)?;
        let opened = Opened {
            geometry,
            terms: Arc::new(terms),
            needs,
            sources,
            layers,
            pages,
            is_endless,
        };
        let ledger = Ledger::new(geometry, pages);
        tracing::info!(
            "KV cache under {} on {place}: {pages} head pages of {} tokens ({} bytes each, {dtype}), budget {}. Prefix caching is \
             off.",
            config.policy,
            geometry.block,
            geometry.page_bytes(),
            config.budget,
        );
        if self.opened.set(opened).is_err() {
            return Err(StartError::Model(
                "its cache was opened twice (is it loaded as a draft of another model?)".into(),
            ));
        }
        *self.state.lock() = Some(State {
            ledger,
            cache,
            queue: HashMap::new(),
            open: HashMap::new(),
            ended: VecDeque::new(),
            counts: Counts::default(),
            rotation: None,
            released: None,
            evicted_before: 0,
            idle,
            parking: Parking::new(pages),
        });
        Ok(caches)
    }
}

/// Bytes that caches of finished sequences may hold.
fn keep_turns(config: &CacheConfig, place: &Place) -> Result<usize, StartError> {
    if config.keep_turns_mib > 0 && !place.is_host() {
        return Err(StartError::OutOfRange {
            field: "keep-turns-mb",
            value: config.keep_turns_mib.to_string(),
            allowed: format!("0 on {place}: caches are kept from turn to turn on the CPU only"),
        });
    }
    Ok(config.keep_turns_mib.saturating_mul(1 << 20))
}

/// A bound that not even one sequence can be promised is a mistake in the budget.
pub(super) fn check_room(
    policy: &str,
    geometry: &Geometry,
    terms: &Terms,
    pages: usize,
) -> Result<(), StartError> {
    let wanted = terms.pages(geometry, 1, 0);
    if wanted <= pages {
        return Ok(());
    }
    if terms.budget == Budget::Full {
        // No budget is to blame, but what the policy was set to keep.
        return Err(StartError::OutOfRange {
            field: "pa-context-len",
            value: format!("room for {pages} pages"),
            allowed: format!(
                "room for at least {wanted}: with its settings, {policy} holds so many for one sequence \
                 (`--pa-context-len`, `--pa-memory-mb`)"
            ),
        });
    }
    let tokens = terms.tokens(geometry, 1);
    let most = pages / geometry.heads() * geometry.block;
    Err(StartError::Config(ConfigError::Budget {
        value: format!(
            "{} ({tokens} tokens per KV head, {wanted} pages)",
            terms.budget
        ),
        allowed: format!(
            "at most {most} tokens per KV head, for the pool has {pages} pages; or make the pool larger \
             (`--pa-context-len`, `--pa-memory-mb`)"
        ),
    }))
}

/// The model's shape, if all its layers have the same one and it can be kept in head pages on this machine.
fn geometry(spec: &PoolSpec, dtype: KvDtype) -> Result<Geometry, StartError> {
    let refuse = |reason: String| Err(StartError::Model(reason));
    let Some(first) = spec.layers.first() else {
        return refuse("it has no attention layers".into());
    };
    if spec.latent {
        return refuse("its cache holds latent vectors (MLA), not keys and values".into());
    }
    for (index, layer) in spec.layers.iter().enumerate() {
        check_layer(index, layer, first)?;
    }
    if first.kv_heads == 0 || !spec.query_heads.is_multiple_of(first.kv_heads) {
        return refuse(format!(
            "{} query heads do not divide among {} KV heads",
            spec.query_heads, first.kv_heads
        ));
    }
    Ok(Geometry {
        layers: spec.layers.len(),
        kv_heads: first.kv_heads,
        group: spec.query_heads / first.kv_heads,
        head_dim: first.key_dim,
        block: spec.block,
        element_bytes: dtype.size_in_bytes(),
        max_positions: spec.max_positions,
    })
}

/// How keys and values are stored.
fn storage(spec: &PoolSpec, config: &CacheConfig, place: &Place) -> Result<KvDtype, StartError> {
    let of_the_engine = match spec.dtype {
        DType::F32 => KvDtype::F32,
        DType::F16 => KvDtype::F16,
        DType::BF16 => KvDtype::Bf16,
        other => {
            return Err(StartError::Model(format!(
                "its cache type is {other:?}, must be F32, F16 or BF16 (`--dtype f32`)"
            )));
        }
    };
    Ok(match (config.dtype, of_the_engine) {
        (Some(dtype), _) => dtype,
        (None, KvDtype::F32) if place.is_host() => KvDtype::F16,
        (None, dtype) => dtype,
    })
}

/// The same, as candle calls it.
const fn tensor_dtype(dtype: KvDtype) -> DType {
    match dtype {
        KvDtype::F16 => DType::F16,
        KvDtype::Bf16 => DType::BF16,
        _ => DType::F32,
    }
}

fn check_layer(index: usize, layer: &LayerSpec, first: &LayerSpec) -> Result<(), StartError> {
    let refuse = |reason: String| Err(StartError::Model(reason));
    if !layer.own_cache {
        return refuse(format!("layer {index} reads another layer's cache"));
    }
    if (layer.kv_heads, layer.key_dim, layer.value_dim)
        != (first.kv_heads, first.key_dim, first.value_dim)
    {
        return refuse(format!(
            "its layers differ: layer 0 has {} KV heads of {}+{} dimensions, layer {index} has {} of {}+{}",
            first.kv_heads,
            first.key_dim,
            first.value_dim,
            layer.kv_heads,
            layer.key_dim,
            layer.value_dim
        ));
    }
    if layer.key_dim != layer.value_dim {
        return refuse(format!(
            "its keys have {} dimensions, its values {}",
            layer.key_dim, layer.value_dim
        ));
    }
    Ok(())
}

/// Refuses by name what this runtime does not supply.
fn check_needs(policy: &str, needs: &Needs, place: &Place) -> Result<(), StartError> {
    let unsupported = |need: String, offered: &str| {
        Err(StartError::Config(ConfigError::Unsupported {
            policy: policy.into(),
            need,
            offered: offered.into(),
        }))
    };
    if !place.is_host() && needs.reads.classes {
        return unsupported(
            format!("what kind of text tokens are, on {place}"),
            "it with the cache on the CPU",
        );
    }
    if !place.is_host() && (needs.observation == Observation::Latest || needs.reduction.shared) {
        return unsupported(
            format!(
                "{} on {place}",
                match needs.observation {
                    Observation::Latest => needs.observation.to_string(),
                    _ => "one score for all heads of a layer".into(),
                }
            ),
            "it with the cache on the CPU; on a device, attention of a window, accumulated, of every decode step, and key norms",
        );
    }
    if needs.observation == Observation::Rows && needs.reduction.queries != Reduce::Sum {
        return unsupported(
            format!("rows with {:?} over the queries", needs.reduction.queries),
            "the sum: the rows of decode steps are added to it",
        );
    }
    check_cadence(policy, needs, place)?;
    if needs.positions == Positions::CacheRelative {
        if !place.is_host() {
            let need = format!("cache-relative positions on {place}");
            return unsupported(need, "them with the cache on the CPU");
        }
        if needs.observation.watches_decode() {
            let need = format!("cache-relative positions and {}", needs.observation);
            return unsupported(need, "one of the two");
        }
    }
    Ok(())
}

/// Refuses heads that stream the prompt where the engine's own attention reads it, which shows every head everything.
fn check_sight(
    policy: &str,
    terms: &Terms,
    geometry: &Geometry,
    place: &Place,
) -> Result<(), StartError> {
    let mut heads = (0..geometry.layers)
        .flat_map(|layer| (0..geometry.kv_heads).map(move |head| (layer, head)));
    let streams = heads.any(|(layer, head)| terms.policy.sight(layer, head) != Sight::Causal);
    if streams && !place.is_host() {
        return Err(StartError::Config(ConfigError::Unsupported {
            policy: policy.into(),
            need: format!("heads that see a part of the prompt only, on {place}"),
            offered: "them with the cache on the CPU; elsewhere set what makes them so to `dense`"
                .into(),
        }));
    }
    Ok(())
}

/// A (key, value) pair per layer that the engine carries around: the pages are ours, so the tensors are one number each,
/// and the key's id names the layer.
fn layer_names(spec: &PoolSpec) -> Result<Vec<(Tensor, Tensor)>, StartError> {
    let name = |layer: &LayerSpec| Tensor::zeros(1, spec.dtype, &layer.device);
    spec.layers
        .iter()
        .map(|layer| Ok((name(layer)?, name(layer)?)))
        .collect::<candle_core::Result<_>>()
        .map_err(|e| StartError::Model(e.to_string()))
}
