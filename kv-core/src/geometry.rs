//! The shape of one model's cache.
use serde::{Deserialize, Serialize};

/// The fixed shape of a model's KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Attention layers, `L`.
    pub layers: usize,
    /// KV heads of a layer, `H`.
    pub kv_heads: usize,
    /// Query heads per KV head, `G`.
    pub group: usize,
    /// Dimension of a key and of a value, `D`.
    pub head_dim: usize,
    /// Tokens per page, `B`.
    pub block: usize,
    /// Bytes of one stored number.
    pub element_bytes: usize,
    /// Positions that the model was trained for.
    pub max_positions: usize,
}

impl Geometry {
    /// Heads of all layers, `L * H`.
    #[must_use]
    pub const fn heads(&self) -> usize {
        self.layers * self.kv_heads
    }

    /// Where a head stands among all heads, layer by layer.
    #[must_use]
    pub const fn head_index(&self, layer: usize, head: usize) -> usize {
        layer * self.kv_heads + head
    }

    /// Pages that one head needs for `tokens`.
    #[must_use]
    pub const fn head_pages(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block)
    }

    /// Pages of a full cache in which every head holds `tokens`.
    #[must_use]
    pub const fn full_pages(&self, tokens: usize) -> usize {
        self.heads() * self.head_pages(tokens)
    }

    /// Bytes of a page: `B` keys and `B` values.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        2 * self.block * self.head_dim * self.element_bytes
    }
}
