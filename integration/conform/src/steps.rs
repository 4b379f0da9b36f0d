//! Cases with a mask after every token: a policy that evicts while decoding, driven as the engine's runtime does it.
//!
//! References evict after the attention of a step; here the victim stays until the next token needs its slot. So what is
//! compared after a step is what a head holds, less the token that is next to go where the head is full.
use std::borrow::Cow;

use attention_kernels::{
    AttendArgs, HeadSlots, KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, attend_observed,
    write,
};
use kv_core::{Address, Demand, HeadTable, Ledger, Pins, Place, Position, Rotation, SeqId, Slot};

use crate::{
    arrays::Arrays,
    bound::Bound,
    case::Case,
    compare::{Finding, Tally},
    error::Stop,
    layer::Layer,
    mask::Mask,
    tie,
};

const SEQ: SeqId = SeqId(0);

/// Compares every layer that has arrays, after the prompt and after every token.
pub(crate) fn check(
    case: &Case,
    bound: &Bound,
    mask: &Mask,
    prefill: usize,
    arrays: &Arrays,
) -> Result<Finding, Stop> {
    if prefill == 0 || prefill + mask.steps > mask.tokens + 1 {
        return Err(Stop::case(format!(
            "a prompt of {prefill} tokens and {} masks do not fit {} tokens",
            mask.steps, mask.tokens
        )));
    }
    let mut tally = Tally::default();
    for layer in 0..mask.layers {
        let Some(tensors) = arrays.layer(layer) else {
            continue;
        };
        let mut run = Run::new(bound, mask, layer, bound.layer(tensors))?;
        let theirs = mask.kept(layer, 0);
        let tied = run.prompt(prefill, &theirs, arrays.rotation())?;
        let is_tie = tied.is_some();
        let ours = tied.map_or_else(|| run.settled(), Ok)?;
        let place = format!("layer {layer}, step 0");
        tally.add(&place, (&ours, &theirs), None, |_| is_tie);
        for step in 1..mask.steps {
            run.step(prefill + step - 1)?;
            let theirs = mask.kept(layer, step);
            let ours = run.settled()?;
            let is_tie = run.reconcile(&ours, &theirs)?;
            let place = format!("layer {layer}, step {step}");
            tally.add(&place, (&ours, &theirs), None, |_| is_tie);
        }
        tally.add_layer();
    }
    Ok(tally.finding(case, mask.layers))
}

/// One layer of one sequence.
struct Run<'a> {
    bound: &'a Bound,
    layer: usize,
    tensors: Cow<'a, Layer>,
    ledger: Ledger,
    store: PageStore,
}

impl<'a> Run<'a> {
    fn new(
        bound: &'a Bound,
        mask: &Mask,
        layer: usize,
        tensors: Cow<'a, Layer>,
    ) -> Result<Self, Stop> {
        let (geometry, tokens) = (bound.geometry, mask.tokens);
        let budget = bound.tokens(tokens);
        let demand = Demand::new(&*bound.policy, &bound.needs, &geometry, tokens, budget);
        let pages = demand.pages(&geometry, tokens, 0);
        let page_layout = PageLayout::new(geometry.block, geometry.head_dim)?;
        let mut ledger = Ledger::new(geometry, pages);
        ledger.open(SEQ, tokens, demand, &Pins::default())?;
        Ok(Self {
            bound,
            layer,
            tensors,
            ledger,
            store: PageStore::new(page_layout, KvDtype::F32, pages)?,
        })
    }

    /// Plans and writes the prompt. Where the reference keeps others by a tie, goes on with those, and returns what we keep.
    fn prompt(
        &mut self,
        tokens: usize,
        theirs: &[Vec<u32>],
        rotation: Option<&Rotation>,
    ) -> Result<Option<Vec<Vec<u32>>>, Stop> {
        let (bound, layer) = (self.bound, self.layer);
        let shown = bound.show(Cow::Borrowed(&self.tensors), tokens, rotation)?;
        let ours = bound.kept(layer, tokens, Some(&shown));
        let leaning = if ours == theirs {
            None
        } else {
            tie::leaning(bound, layer, tokens, &shown, theirs)
        };
        let tied = leaning.is_some().then_some(ours);
        let chosen = leaning.as_ref().unwrap_or(&shown);
        let kept = bound.plan(layer, tokens, Some(chosen), |plan, view| {
            plan.resolve(view, &Pins::default())
        });
        let addresses = self.ledger.write_prompt(SEQ, layer, tokens, &kept)?;
        let heads = kept.slots.iter().zip(addresses).enumerate();
        let rows = heads.flat_map(|(head, (slots, addresses))| {
            let first = head * self.tensors.shape.tokens;
            let row = move |(&slot, at): (&u32, Address)| RowWrite::at(first + slot as usize, at);
            slots.iter().zip(addresses).map(row)
        });
        let rows: Vec<RowWrite> = rows.collect();
        self.write(&rows)?;
        Ok(tied)
    }

    /// One decode step: the token enters, its queries attend, and what they attended to is added to the scores.
    fn step(&mut self, position: usize) -> Result<(), Stop> {
        let entered = self
            .ledger
            .append(SEQ, self.layer, Position::new(position))?;
        let row = |(head, at)| RowWrite::at(head * self.tensors.shape.tokens + position, at);
        let rows: Vec<RowWrite> = entered.heads.into_iter().enumerate().map(row).collect();
        self.write(&rows)?;
        let seen = self.attend(position)?;
        self.ledger
            .note_rows(SEQ, self.layer, &self.bound.needs, &seen)?;
        Ok(())
    }

    /// The attention rows of all heads, one after the other.
    fn attend(&self, position: usize) -> Result<Vec<f32>, Stop> {
        let head_dim = self.tensors.shape.head_dim;
        let query_heads = self
            .tensors
            .queries
            .chunks_exact(self.tensors.shape.tokens * head_dim);
        let query = |head: &'_ [f32]| head[position * head_dim..(position + 1) * head_dim].to_vec();
        let queries: Vec<f32> = query_heads.flat_map(query).collect();
        let tables = self.tables()?;
        let slots = tables.iter().map(|table| HeadSlots {
            pages: table.page_ids(),
            len: table.len(),
        });
        let args = AttendArgs {
            queries: &queries,
            heads: &slots.collect::<Vec<_>>(),
            group: self.bound.geometry.group,
            scale: self.bound.scale(),
            softcap: None,
        };
        let observed = attend_observed(&self.store, &args, self.bound.needs.reduction.group)?;
        Ok(observed.rows)
    }

    fn tables(&self) -> Result<Vec<&HeadTable>, Stop> {
        let heads = 0..self.bound.geometry.kv_heads;
        let table = |head| self.ledger.head(SEQ, self.layer, head);
        Ok(heads.map(table).collect::<Result<_, _>>()?)
    }

    /// What every head holds, less the token that is next to go.
    fn settled(&self) -> Result<Vec<Vec<u32>>, Stop> {
        Ok(self.tables()?.into_iter().map(settled).collect())
    }

    /// Whether heads that differ from the reference do so by ties; goes on with the reference's choice then.
    fn reconcile(&mut self, ours: &[Vec<u32>], theirs: &[Vec<u32>]) -> Result<bool, Stop> {
        for (head, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            if ours == theirs {
                continue;
            }
            let table = self.ledger.head(SEQ, self.layer, head)?;
            let Some((victim, other)) = tied_victims(table, theirs) else {
                return Ok(false);
            };
            let scores = self.ledger.scores_mut(SEQ, self.layer, head)?;
            let (a, b) = (scores[victim.index()], scores[other.index()]);
            (scores[other.index()], scores[victim.index()]) = tie::apart(a, b);
            let table = self.ledger.head(SEQ, self.layer, head)?;
            if settled(table) != *theirs {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes rows of the layer's keys. What a head attends to does not depend on its values, so keys stand in for them.
    fn write(&mut self, rows: &[RowWrite]) -> Result<(), Stop> {
        let args = WriteArgs {
            keys: &self.tensors.keys,
            values: &self.tensors.keys,
            rows,
        };
        Ok(write(&mut self.store, &args)?)
    }
}

fn settled(table: &HeadTable) -> Vec<u32> {
    let victim = match table.place() {
        Place::Overwrite(slot) => Some(slot.index()),
        Place::Append => None,
    };
    let slots = table.positions().iter().enumerate();
    let stays = slots.filter(|&(slot, _)| Some(slot) != victim);
    let mut positions: Vec<u32> = stays.map(|(_, position)| position.0).collect();
    positions.sort_unstable();
    positions
}

/// The slot that is next to go and the one that the reference gave up instead, if their scores are the same but for rounding.
fn tied_victims(table: &HeadTable, theirs: &[u32]) -> Option<(Slot, Slot)> {
    let Place::Overwrite(victim) = table.place() else {
        return None;
    };
    let is_gone = |slot: &usize| theirs.binary_search(&table.positions()[*slot].0).is_err();
    let mut gone = (0..table.len()).filter(is_gone);
    let (other, None) = (gone.next()?, gone.next()) else {
        return None;
    };
    let other = Slot::new(other);
    tie::are_close(table.score(victim), table.score(other)).then_some((victim, other))
}
