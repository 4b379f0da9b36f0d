//! A prompt of five tokens and three steps, worked out by hand.
use kv_core::{
    Budget, Demand, KeepPlan, LayerView, Ledger, Observation, Pins, Policy, PolicyConfig, Position,
    SeqId, conformance,
};
use kv_policy_tova::{Decode, TovaConfig};

const SEQ: SeqId = SeqId(0);

/// One layer of two heads that decodes as the host does: the newcomer's slot first, then the step's attention.
#[derive(Debug)]
struct Cache {
    ledger: Ledger,
}

impl Cache {
    /// A cache that has read a prompt whose last query attends as `row` says.
    fn after_prompt(config: TovaConfig, budget: usize, row: &[f32]) -> Self {
        let (geometry, prompt) = (conformance::geometry(2), row.len());
        let policy = config
            .bind(&geometry, Budget::Tokens(budget))
            .expect("a good configuration");
        let needs = policy.needs();
        let watched = if needs.appends {
            Observation::Window { queries: 1 }
        } else {
            Observation::Latest
        };
        assert!(needs.reduction.shared && needs.observation == watched);
        let rows = [row, row];
        let view = LayerView::prefill(0, 2, prompt, budget).with_scores(needs.observation, &rows);
        let mut keep = KeepPlan::all(2);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default());
        let demand = Demand::new(&policy, &needs, &geometry, prompt, budget);
        let mut ledger = Ledger::new(geometry, demand.pages(&geometry, prompt + 50, 0));
        ledger
            .open(SEQ, prompt + 50, demand, &Pins::default())
            .expect("room");
        ledger
            .write_prompt(SEQ, 0, prompt, &kept)
            .expect("what was promised");
        Self { ledger }
    }

    /// Decodes one token: `row` is its attention to the positions held, in the order of the text.
    fn step(&mut self, position: usize, row: &[f32]) {
        self.ledger
            .append(SEQ, 0, Position::new(position))
            .expect("what was promised");
        let held = self.held();
        assert_eq!(held.len(), row.len(), "{held:?}");
        for head in 0..2 {
            let table = self.ledger.head(SEQ, 0, head).expect("open");
            let of = |position: &Position| held.iter().position(|held| *held == position.0);
            let at: Vec<usize> = table.positions().iter().filter_map(of).collect();
            let scores = self.ledger.scores_mut(SEQ, 0, head).expect("open");
            for (score, at) in scores.iter_mut().zip(at) {
                *score = row[at];
            }
        }
    }

    /// The positions that both heads hold.
    fn held(&self) -> Vec<u32> {
        let of = |head| {
            let table = self.ledger.head(SEQ, 0, head).expect("open");
            let mut held: Vec<u32> = table.positions().iter().map(|held| held.0).collect();
            held.sort_unstable();
            held
        };
        assert_eq!(of(0), of(1));
        of(0)
    }
}

/// Of a budget of four tokens three are the authors' cache and one is the newcomer's.
#[test]
fn five_tokens_and_three_steps() {
    let row = [0.3, 0.1, 0.35, 0.05, f32::INFINITY];
    let mut cache = Cache::after_prompt(TovaConfig::default(), 4, &row);
    assert_eq!(cache.held(), [0, 2, 4]);
    // Token 0 was worth much to the query before. Only this row counts, and 0 is its lowest.
    cache.step(5, &[0.05, 0.4, 0.15, 0.4]);
    assert_eq!(cache.held(), [0, 2, 4, 5]);
    cache.step(6, &[0.3, 0.4, 0.1, 0.2]);
    assert_eq!(cache.held(), [2, 4, 5, 6], "0 has made room for 6");
    // 5 is the lowest of the row of step 6, and goes though two are older.
    cache.step(7, &[0.1, 0.5, 0.3, 0.1]);
    assert_eq!(cache.held(), [2, 4, 6, 7]);
    // Of equal scores the earlier token stays: 7 goes, the newest but the newcomer.
    cache.step(8, &[0.25, 0.25, 0.25, 0.25]);
    assert_eq!(cache.held(), [2, 4, 6, 8]);
}

#[test]
fn only_the_prompt_is_compressed_where_tokens_are_appended() {
    let config = TovaConfig {
        decode: Decode::Append,
    };
    let row = [0.3, 0.1, 0.35, 0.05, f32::INFINITY];
    let mut cache = Cache::after_prompt(config, 3, &row);
    for position in 5..40 {
        cache.step(position, &vec![0.1; position - 1]);
    }
    assert_eq!(
        cache.held(),
        [0, 2].into_iter().chain(4..40).collect::<Vec<u32>>()
    );
}
