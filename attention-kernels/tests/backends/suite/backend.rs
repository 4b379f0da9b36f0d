//! What a backend can do, over slices of the host.

use attention_kernels::cuda::{HeadStep, RowWanted, SlotWrite};
use attention_kernels::{CopyRow, KvDtype, PageLayout, PromptArgs, ShiftArgs};
use kv_core::{KeepPlan, Observation, Pins, Reduction};

use super::Record;

/// The table of ops. Numbers are `f32` that the store's element type holds exactly. Every method panics where the op refuses.
pub(crate) trait Backend {
    /// Pages, and a position and a score for every slot.
    type Store;

    fn store(&self, layout: PageLayout, dtype: KvDtype, pages: usize) -> Self::Store;

    /// What lies in every slot.
    fn contents(&self, store: &Self::Store) -> Record;

    fn write(
        &self,
        store: &mut Self::Store,
        new: NewTokens<'_>,
        scores: Option<&[f32]>,
        rows: &[SlotWrite],
    );

    fn copy_rows(&self, store: &mut Self::Store, rows: &[CopyRow]);

    fn shift(&self, store: &mut Self::Store, args: &ShiftArgs<'_>);

    /// Token `which.0` of `which.1` of every head of a layer, from `[S * H, T, D]`.
    fn append(
        &self,
        store: &mut Self::Store,
        step: &Decode<'_>,
        layer: usize,
        new: NewTokens<'_>,
        which: (usize, usize),
    );

    fn attend(
        &self,
        store: &mut Self::Store,
        step: &Decode<'_>,
        layer: usize,
        ask: &Ask<'_>,
    ) -> Seen;

    /// `[H, n]`, or nothing where nothing was asked for.
    fn observe(
        &self,
        observation: Observation,
        reduction: Reduction,
        prompt: &PromptArgs<'_>,
        dtype: KvDtype,
    ) -> Option<Vec<f32>>;

    /// The slots that each head keeps of `tokens`, by scores `[H, tokens]`.
    fn keep(
        &self,
        plan: &KeepPlan,
        pins: &Pins,
        tokens: usize,
        scores: Option<&[f32]>,
    ) -> Vec<Vec<u32>>;
}

/// Rows of new keys and values.
#[derive(Clone, Copy)]
pub(crate) struct NewTokens<'a> {
    pub(crate) keys: &'a [f32],
    pub(crate) values: &'a [f32],
}

/// A decode step.
#[derive(Clone, Copy)]
pub(crate) struct Decode<'a> {
    pub(crate) layers: usize,
    /// `[layers, S, H]`.
    pub(crate) heads: &'a [HeadStep<'a>],
    /// `[S]`: position, and whether it is pinned.
    pub(crate) positions: &'a [(u32, bool)],
}

impl<'a> Decode<'a> {
    /// The heads of a layer, `[S, H]`.
    pub(crate) fn layer(&self, layer: usize) -> &'a [HeadStep<'a>] {
        let per_layer = self.heads.len() / self.layers;
        &self.heads[layer * per_layer..][..per_layer]
    }
}

/// What to attend with.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// `[S * H, G, D]`.
    pub(crate) queries: &'a [f32],
    pub(crate) group: usize,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
    pub(crate) row: Option<RowWanted>,
}

/// What attention gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// `[S * H, G, D]`.
    pub(crate) out: Vec<f32>,
    /// Each head's row, where it was asked for.
    pub(crate) rows: Option<Vec<Vec<f32>>>,
}
