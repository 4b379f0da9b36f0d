//! Plans of what layers hold already: when a later layer has reported, and when a head is full.
use candle_core::{Result, bail};
use kv_core::{Cadence, ConfigError, KeepPlan, Kept, LayerView, Move, Needs, Position};

use super::{
    Terms,
    machine::Place,
    pass::{Backend, Pass, Tokens, cache_error},
};
use crate::StartError;

/// Refuses a policy that plans again where the pages are on a device: tokens are moved in the host's memory only.
pub(super) fn check_cadence(
    policy: &str,
    needs: &Needs,
    place: &Place,
) -> std::result::Result<(), StartError> {
    if needs.cadence == Cadence::LayerPrefill || place.is_host() {
        return Ok(());
    }
    Err(StartError::Config(ConfigError::Unsupported {
        policy: policy.into(),
        need: format!("{} on {place}", needs.cadence),
        offered: "it with the cache on the CPU; on a device, a plan after each layer's prompt"
            .into(),
    }))
}

impl Pass<'_> {
    /// Asks what stays of a prompt just read, the batch's sequence `index`; under a cascade the layer reports first.
    pub(super) fn resolve(
        &mut self,
        index: usize,
        terms: &Terms,
        view: &LayerView<'_>,
    ) -> Result<Kept> {
        let mut plan = KeepPlan::all(self.opened.geometry.kv_heads);
        if terms.needs.cadence != Cadence::Cascade {
            terms.policy.plan(view, &mut plan);
            return Ok(plan.resolve(view, &terms.pins));
        }
        let (seq, layer) = (self.seq(index), self.layer);
        let Some(open) = self.open.get_mut(&seq) else {
            bail!("sequence {seq} is not open");
        };
        open.reports.truncate(layer);
        if open.reports.len() < layer {
            bail!("layer {layer} of sequence {seq} comes before the layers below it");
        }
        open.reports.push(terms.policy.report(view));
        let view = view.with_reports(&open.reports);
        terms.policy.plan(&view, &mut plan);
        Ok(plan.resolve(&view, &terms.pins))
    }

    /// Plans anew what a layer of the batch's sequence `index` holds, and says what moves.
    fn plan_again(&mut self, index: usize, layer: usize, terms: &Terms) -> Result<Vec<Move>> {
        let seq = self.seq(index);
        let prompt = self.ledger.sequence(seq).map_err(cache_error)?.prompt();
        let budget = terms.tokens(&self.opened.geometry, prompt);
        let reports = self.open.get(&seq).map(|open| open.reports.as_slice());
        let reports = reports.filter(|_| terms.needs.cadence == Cadence::Cascade);
        let kept = self
            .ledger
            .plan_again(seq, layer, &*terms.policy, budget, reports)
            .map_err(cache_error)?;
        terms.check()?;
        self.ledger.shrink(seq, layer, &kept).map_err(cache_error)
    }
}

/// Cuts the layers before this one down to what its report leaves them.
pub(super) fn cut_earlier<B: Backend + ?Sized>(
    backend: &mut B,
    pass: &mut Pass<'_>,
    index: usize,
    terms: &Terms,
) -> Result<()> {
    if terms.needs.cadence != Cadence::Cascade {
        return Ok(());
    }
    for layer in 0..pass.layer {
        let moves = pass.plan_again(index, layer, terms)?;
        backend.compact(&moves)?;
    }
    Ok(())
}

/// Makes place for tokens that are new, where a head is full.
pub(super) fn make_place<B: Backend + ?Sized>(
    backend: &mut B,
    pass: &mut Pass<'_>,
    tokens: &Tokens,
) -> Result<()> {
    if pass.opened.needs.cadence != Cadence::Full {
        return Ok(());
    }
    for (index, &position) in tokens.sequences.clone().zip(&tokens.positions) {
        let next = Position::new(position);
        let is_full = pass.ledger.is_full(pass.seq(index), pass.layer, next);
        if is_full.map_err(cache_error)? {
            let terms = pass.terms(index);
            let moves = pass.plan_again(index, pass.layer, &terms)?;
            backend.compact(&moves)?;
        }
    }
    Ok(())
}
