//! CAKE: the layers share one budget by what they report of their attention, and each is cut down as later ones report.
//!
//! Qin et al., *CAKE: Cascading and Adaptive KV Cache Eviction with Layer Preferences*, ICLR 2025,
//! <https://arxiv.org/abs/2503.12491>.
//!
//! The attention of the last `window` prompt queries to the tokens before them says two things of a layer: how far it
//! spreads (entropy, `E`) and how much it shifts from query to query (variance, `V`). A layer's preference is
//! `E^(1/tau1) V^(1/tau2)`, and the budget of all layers less their windows is shared out in proportion. A head keeps the
//! tokens with the largest mean plus `gamma` times the variance of that attention, pooled and averaged over its `G` query
//! heads, and the window. The shares are worked out anew for every layer that has read its prompt, and the layers before it
//! shrink at once, so that all together never hold more than the budget.
//!
//! The authors' class that evicts while decoding is another mode, and not here: what is generated is appended. A share that
//! rises once a layer has been cut is lost, with them and here; the tokens are gone.
#![forbid(unsafe_code)]

mod config;
mod share;
mod watch;

pub use config::CakeConfig;
use kv_core::{Cadence, KeepPlan, LayerView, Needs, Phase, Policy, Reads, Room, Scorer};

/// The window and the best of the other prompt tokens, equally many in the heads of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cake {
    config: CakeConfig,
    layers: usize,
    kv_heads: usize,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl Cake {
    /// Tokens that all layers share besides their windows, for each KV head of a layer.
    const fn shared(&self, budget: usize) -> usize {
        budget
            .saturating_sub(self.config.window)
            .saturating_mul(self.layers)
    }

    /// How many tokens before the window the view's layer keeps, by the reports so far.
    fn count(&self, view: &LayerView<'_>) -> usize {
        let longest = view.prompt - self.config.window;
        share::share(view.reports(), self.shared(view.budget), longest)[view.layer]
    }
}

impl Policy for Cake {
    fn needs(&self) -> Needs {
        Needs {
            reads: Reads {
                queries: !self.is_unlimited,
                keys: !self.is_unlimited,
                ..Reads::NONE
            },
            appends: true,
            cadence: Cadence::Cascade,
            min_tokens: self.config.window,
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, prompt: usize, budget: usize) -> Room {
        Room::Each(match budget {
            usize::MAX => usize::MAX,
            budget => prompt.min(self.shared(budget).saturating_add(self.config.window)),
        })
    }

    fn together(&self, _: usize, budget: usize) -> Option<usize> {
        let heads = self.layers * self.kv_heads;
        (budget < usize::MAX).then(|| heads.saturating_mul(budget))
    }

    fn report(&self, view: &LayerView<'_>) -> f64 {
        if view.prompt <= view.budget {
            return 0.0;
        }
        self.config.preference(view)
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.prompt <= view.budget {
            return;
        }
        let count = self.count(view);
        if view.phase == Phase::Prefill {
            for (head, scores) in self.scores(view).into_iter().enumerate() {
                keep.top_by(head, scores, count, self.config.window);
            }
            return;
        }
        // The scores have stayed with the slots; behind the window stands what was read through the cache since.
        let recent = self.config.window + view.seen() - view.prompt;
        for head in 0..view.heads() {
            keep.top(head, count, recent);
        }
    }
}

impl Scorer for Cake {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        (0..view.heads())
            .map(|head| self.config.scores(view, head))
            .collect()
    }
}
