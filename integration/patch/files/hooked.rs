// Written by Headroom's patch: the paged layer's calls to the runtime behind kv-hook.
use candle_core::{Result, Tensor};

use crate::{
    attention::SdpaParams,
    layers::Sdpa,
    pipeline::text_models_inputs_processor::{FlashParams, PagedAttentionInputMetadata},
};

pub(super) struct Call<'a> {
    pub(super) query: &'a Tensor,
    pub(super) key: &'a Tensor,
    pub(super) value: &'a Tensor,
    pub(super) attention_mask: Option<&'a Tensor>,
    pub(super) key_cache: Option<&'a Tensor>,
    pub(super) metadata: &'a PagedAttentionInputMetadata,
    pub(super) sdpa_params: &'a SdpaParams,
    pub(super) flash_params: Option<&'a FlashParams>,
    pub(super) own_cache: bool,
    pub(super) alibi: bool,
}

impl Call<'_> {
    fn dense(&self) -> Result<Tensor> {
        Sdpa.run_attention(
            self.query,
            self.key,
            self.value,
            self.attention_mask,
            self.flash_params,
            self.sdpa_params,
        )
    }

    /// Attention of one layer through the runtime, or `None` where no runtime serves this batch.
    pub(super) fn hooked(&self) -> Result<Option<Tensor>> {
        // Taken in any case: they are this layer's and no other's.
        let rotation = kv_hook::take_rotation();
        let (Some(batch), Some(key_cache)) = (&self.metadata.hook, self.key_cache) else {
            return Ok(None);
        };
        if !self.own_cache || self.alibi || self.sdpa_params.sinks.is_some() {
            candle_core::bail!(
                "a KV-cache policy cannot serve layers with a shared cache, ALiBi slopes or learned attention sinks"
            );
        }
        let call = kv_hook::LayerCall {
            cache: key_cache.id(),
            batch,
            queries: self.query,
            keys: self.key,
            values: self.value,
            softmax_scale: self.sdpa_params.softmax_scale,
            softcap: self.sdpa_params.softcap.filter(|&cap| cap != 1.0),
            sliding_window: self.sdpa_params.sliding_window,
            is_causal: self.attention_mask.is_some_and(kv_hook::is_causal),
            rotation,
        };
        if self.attention_mask.is_none() {
            return batch.runtime.decode(&call).map(Some);
        }
        batch.runtime.prompt(&call, &|| self.dense()).map(Some)
    }
}

#[cfg(not(any(all(feature = "cuda", target_family = "unix"), feature = "metal")))]
pub use without_gpu::PagedAttention;

#[cfg(not(any(all(feature = "cuda", target_family = "unix"), feature = "metal")))]
mod without_gpu {
    use candle_core::{Device, Result, Tensor};

    use super::{Call, FlashParams, PagedAttentionInputMetadata, SdpaParams};

    pub struct PagedAttention {
        alibi: bool,
    }

    impl PagedAttention {
        pub fn new(
            _head_dim: usize,
            _device: &Device,
            alibi_slopes: Option<Vec<f32>>,
        ) -> Result<Self> {
            if !kv_hook::installed() {
                candle_core::bail!("Paged attention requires the CUDA or Metal feature flags.");
            }
            Ok(Self {
                alibi: alibi_slopes.is_some(),
            })
        }

        #[allow(clippy::too_many_arguments)]
        pub fn forward(
            &self,
            query: &Tensor,
            key: &Tensor,
            value: &Tensor,
            attention_mask: Option<&Tensor>,
            key_cache: Option<Tensor>,
            _value_cache: Option<Tensor>,
            metadata: &PagedAttentionInputMetadata,
            sdpa_params: &SdpaParams,
            flash_params: Option<&FlashParams>,
        ) -> Result<Tensor> {
            let call = Call {
                query,
                key,
                value,
                attention_mask,
                key_cache: key_cache.as_ref(),
                metadata,
                sdpa_params,
                flash_params,
                own_cache: true,
                alibi: self.alibi,
            };
            match call.hooked()? {
                Some(out) => Ok(out),
                // Calibration forwards carry no cache; they are dense, as in the GPU builds.
                None if attention_mask.is_some() => call.dense(),
                None => candle_core::bail!("Paged attention on a CPU needs a KV-cache policy."),
            }
        }

        #[allow(clippy::too_many_arguments)]
        pub fn forward_donor_cache(
            &self,
            _query: &Tensor,
            _key_cache: &Tensor,
            _value_cache: &Tensor,
            _attention_mask: Option<&Tensor>,
            _metadata: &PagedAttentionInputMetadata,
            _sdpa_params: &SdpaParams,
            _flash_params: Option<&FlashParams>,
        ) -> Result<Tensor> {
            candle_core::bail!("a KV-cache policy cannot serve layers that share another layer's cache")
        }
    }
}
