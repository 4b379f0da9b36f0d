//! One layer of a cache that decodes as the host does: the newcomer's slot first, then the step's attention.
use kv_core::{
    Budget, Demand, KeepPlan, LayerView, Ledger, Pins, Place, Policy, PolicyConfig, Position,
    SeqId, conformance,
};
use kv_policy_h2o::H2oConfig;

const SEQ: SeqId = SeqId(0);

#[derive(Debug)]
pub(crate) struct Cache {
    ledger: Ledger,
    heads: usize,
}

impl Cache {
    /// A cache that has read a prompt with these scores, `[H][n]`.
    pub(crate) fn after_prompt(config: H2oConfig, budget: Budget, scores: &[Vec<f32>]) -> Self {
        let (heads, prompt) = (scores.len(), scores[0].len());
        let geometry = conformance::geometry(heads);
        let policy = config
            .bind(&geometry, budget)
            .expect("a good configuration");
        let needs = policy.needs();
        let tokens = budget.tokens(&geometry, prompt).max(needs.min_tokens);
        let rows: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
        let view =
            LayerView::prefill(0, heads, prompt, tokens).with_scores(needs.observation, &rows);
        let mut keep = KeepPlan::all(heads);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default());

        let demand = Demand::new(&policy, &needs, &geometry, prompt, tokens);
        let mut ledger = Ledger::new(geometry, demand.pages(&geometry, prompt + 200, 0));
        ledger
            .open(SEQ, prompt + 200, demand, &Pins::default())
            .expect("room");
        ledger
            .write_prompt(SEQ, 0, prompt, &kept)
            .expect("what was promised");
        Self { ledger, heads }
    }

    /// Decodes one token: `attention` gives its row over the positions that a head holds, the newcomer's among them.
    pub(crate) fn step(
        &mut self,
        position: usize,
        attention: impl Fn(usize, &[usize]) -> Vec<f32>,
    ) {
        self.ledger
            .append(SEQ, 0, Position::new(position))
            .expect("what was promised");
        for head in 0..self.heads {
            let table = self.ledger.head(SEQ, 0, head).expect("open");
            let held: Vec<usize> = table.positions().iter().map(|p| p.index()).collect();
            let row = attention(head, &held);
            let scores = self.ledger.scores_mut(SEQ, 0, head).expect("open");
            for (score, mass) in scores.iter_mut().zip(row) {
                *score += mass;
            }
        }
    }

    /// Positions and scores of a head, ascending, less the token whose slot the next one takes: what the authors keep.
    pub(crate) fn kept(&self, head: usize) -> Vec<(u32, f32)> {
        let table = self.ledger.head(SEQ, 0, head).expect("open");
        let victim = match table.place() {
            Place::Overwrite(slot) => Some(slot.index()),
            Place::Append => None,
        };
        let mut kept: Vec<(u32, f32)> = (0..table.len())
            .filter(|&slot| Some(slot) != victim)
            .map(|slot| (table.positions()[slot].0, table.scores()[slot]))
            .collect();
        kept.sort_by_key(|&(position, _)| position);
        kept
    }
}
