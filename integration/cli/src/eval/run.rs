//! Items under caches: one dense reading of each text, then every cache in turn.
use anyhow::{Context, Result};
use candle_core::DType;
use kv_core::{Budget, SequenceReport};
use kv_eval::{
    score::{Said, Turns, divergence, say, top},
    tasks::Item,
};
use mistralrs_kv::{RequestCache, Study};

use super::{
    caches::{BASELINES, Candidate, matched},
    items::Asked,
    record::{CacheName, Key, Question, Record, Records},
};
use crate::clock::{Clock, short};

/// A text and its turns in tokens.
struct Prepared {
    text: Vec<u32>,
    turns: Turns,
    /// What the request asks of its cache.
    request: RequestCache,
}

impl Prepared {
    fn tokens(&self) -> usize {
        self.text.len() + self.turns.tokens.len()
    }
}

/// Measures what is not in `records` yet.
pub(super) async fn run(
    study: &mut Study,
    candidates: &[Candidate],
    items: &[Asked],
    records: &mut Records,
) -> Result<()> {
    let clock = Clock::start(items.len());
    let geometry = study.caches()[0].geometry();
    let block = geometry.context("the pool is open")?.block;
    let mut read: Option<(Vec<u32>, Vec<f32>)> = None;
    for (index, asked) in items.iter().enumerate() {
        if is_done(candidates, asked, block, records) {
            continue;
        }
        tell(&clock, index, items.len(), asked);
        let prepared = prepare(study, asked).await?;
        let (tokens, most) = (prepared.tokens(), study.max_positions());
        if tokens > most {
            eprintln!("eval: left out: it has {tokens} tokens, and the model was built for {most}");
            continue;
        }
        // Several questions in a row may be about one text.
        let before = match read {
            Some((text, before)) if text == prepared.text => before,
            _ => study
                .read(prepared.text.clone())
                .await?
                .to_dtype(DType::F32)?
                .to_vec1()?,
        };
        let mut desk = Desk {
            study: &mut *study,
            asked,
            prepared: &prepared,
            before: &before,
            block,
            full: Vec::new(),
        };
        desk.all(candidates, records).await?;
        read = Some((prepared.text, before));
    }
    Ok(())
}

fn key(asked: &Asked, cache: CacheName) -> Key {
    Key {
        task: asked.item.task.clone(),
        item: asked.item.name.clone(),
        question: asked.question,
        cache,
    }
}

/// Whether all of an item's records are there: those of every cache, and of the baselines with its bytes, or that of a full cache that fails.
fn is_done(candidates: &[Candidate], asked: &Asked, block: usize, records: &Records) -> bool {
    let known = |name: &CacheName| records.get(&key(asked, name.clone()));
    if known(&candidates[0].name).is_some_and(|full| !is_worth_it(full)) {
        return true;
    }
    candidates.iter().all(|candidate| {
        known(&candidate.name).is_some_and(|record| {
            let same_budget = known(&candidate.name.baseline(BASELINES[0]));
            let matched = same_budget.map(|other| matched(record, other, block));
            let mut names = matched.into_iter().flatten();
            names.all(|(name, _)| known(&name).is_some())
        })
    })
}

/// Whether the full cache gives an answer, or there is none to give.
fn is_worth_it(full: &Record) -> bool {
    full.exact.is_empty() || full.exact.contains(&true)
}

async fn prepare(study: &Study, asked: &Asked) -> Result<Prepared> {
    let mut turns = Turns::default();
    if let Some((text, behind)) = &asked.tokens {
        turns.push(&[], behind);
        return Ok(Prepared {
            text: text.clone(),
            turns,
            request: RequestCache::default(),
        });
    }
    let Item {
        text,
        turns: all,
        instruction,
        ..
    } = &asked.item;
    let mut request = RequestCache::default();
    if asked.question == Question::Pinned {
        let rule = study.tokens(&text[..*instruction]).await?;
        request.pin_prefix = Some(u32::try_from(rule.len())?);
    }
    let mut text = study.tokens(text).await?;
    for turn in all {
        let mut question = study.tokens(&turn.question).await?;
        let answer = study.tokens(&turn.answer).await?;
        if asked.question == Question::Inside {
            // Its last token has to be read behind what is compressed, to say the answer.
            text.append(&mut question);
            question.extend(text.pop());
        }
        turns.push(&question, &answer);
    }
    Ok(Prepared {
        text,
        turns,
        request,
    })
}

/// One item, and what is known of it while caches take their turns.
struct Desk<'a> {
    study: &'a mut Study,
    asked: &'a Asked,
    prepared: &'a Prepared,
    /// The logits behind the text's last token, `[V]`.
    before: &'a [f32],
    /// Tokens of a page.
    block: usize,
    /// The full cache's logits.
    full: Vec<Vec<f32>>,
}

impl Desk<'_> {
    /// Every cache that has no record yet; the full cache in any case, for others to be compared with.
    async fn all(&mut self, candidates: &[Candidate], records: &mut Records) -> Result<()> {
        for (cache, candidate) in candidates.iter().enumerate() {
            let key = key(self.asked, candidate.name.clone());
            if cache == 0 || records.get(&key).is_none() {
                let record = self
                    .measure(cache, key.clone(), self.prepared.request)
                    .await?;
                let hopeless = cache == 0 && !is_worth_it(&record);
                if records.get(&key).is_none() {
                    records.add(record)?;
                }
                if hopeless {
                    return Ok(());
                }
            }
            self.baselines(candidates, &key, records).await?;
        }
        Ok(())
    }

    /// The baselines with the bytes of a cache, where those of its budget held others.
    async fn baselines(
        &mut self,
        candidates: &[Candidate],
        of: &Key,
        records: &mut Records,
    ) -> Result<()> {
        let same_budget = key(self.asked, of.cache.baseline(BASELINES[0]));
        let (Some(record), Some(same_budget)) = (records.get(of), records.get(&same_budget)) else {
            return Ok(());
        };
        for (name, tokens) in matched(record, same_budget, self.block) {
            let key = key(self.asked, name);
            let place = candidates
                .iter()
                .position(|candidate| candidate.name.policy == key.cache.policy);
            let Some(cache) = place.filter(|_| records.get(&key).is_none()) else {
                continue;
            };
            let request = RequestCache {
                budget: Some(Budget::Tokens(tokens)),
                ..self.prepared.request
            };
            let record = self.measure(cache, key, request).await?;
            records.add(record)?;
        }
        Ok(())
    }

    async fn measure(&mut self, cache: usize, key: Key, request: RequestCache) -> Result<Record> {
        let what = format!(
            "{} at {} on {} ({})",
            key.cache.title(),
            key.cache.budget,
            key.task,
            key.item
        );
        self.ask(cache, key, request).await.with_context(|| what)
    }

    async fn ask(&mut self, cache: usize, key: Key, request: RequestCache) -> Result<Record> {
        let turns = &self.prepared.turns;
        let is_text = self.asked.tokens.is_some();
        let page_bytes = {
            let geometry = self.study.caches()[cache].geometry();
            geometry.context("the pool is open")?.page_bytes()
        };
        let bytes = |report: &SequenceReport| {
            let pages = [report.pages_held, report.pages_full];
            pages.map(|pages| pages * page_bytes)
        };
        let text_bytes = if is_text {
            let first = &turns.tokens[..1];
            let gone_on = self.study.go_on_under(cache, &request, first).await?;
            Some(bytes(&gone_on.report).into())
        } else {
            None
        };
        let gone_on = self
            .study
            .go_on_under(cache, &request, turns.read())
            .await?;
        let mut rows = vec![self.before.to_vec()];
        rows.extend(gone_on.logits.to_dtype(DType::F32)?.to_vec2()?);
        if self.full.is_empty() {
            self.full.clone_from(&rows);
        }
        let Scores {
            exact,
            nll,
            divergence,
            agrees,
        } = scores(turns, &self.full, &rows);
        let [held_bytes, full_bytes] = bytes(&gone_on.report);
        let SequenceReport {
            cached_tokens,
            pages_held,
            pages_full,
            kept,
            ..
        } = gone_on.report;
        Ok(Record {
            depth: self.asked.item.depth,
            text_tokens: self.prepared.text.len(),
            cached_tokens,
            pages_held,
            pages_full,
            held_bytes,
            full_bytes,
            text_bytes,
            // A text has no right answer.
            exact: if is_text { Vec::new() } else { exact },
            nll,
            divergence,
            agrees,
            kept,
            key,
        })
    }
}

/// What logits say of answers.
struct Scores {
    /// Of each answer, whether all its tokens are the most likely ones.
    exact: Vec<bool>,
    /// Of each token of an answer, its negative log-likelihood, and both comparisons with the full cache.
    nll: Vec<f64>,
    divergence: Vec<f64>,
    agrees: Vec<bool>,
}

/// Scores rows of logits, `[1 + T, V]`, beside those of the full cache.
fn scores(turns: &Turns, full: &[Vec<f32>], rows: &[Vec<f32>]) -> Scores {
    let answers: Vec<Vec<(usize, u32)>> = turns.rows().collect();
    let said = |&(row, token): &(usize, u32)| (row, token, say(&rows[row], token));
    let said: Vec<Vec<(usize, u32, Said)>> = answers
        .iter()
        .map(|answer| answer.iter().map(said).collect())
        .collect();
    let exact = said
        .iter()
        .map(|answer| answer.iter().all(|(_, token, said)| said.top == *token));
    let exact = exact.collect();
    let all: Vec<(usize, Said)> = said
        .into_iter()
        .flatten()
        .map(|(row, _, said)| (row, said))
        .collect();
    Scores {
        exact,
        nll: all.iter().map(|(_, said)| said.nll).collect(),
        divergence: all
            .iter()
            .map(|&(row, _)| divergence(&full[row], &rows[row]))
            .collect(),
        agrees: all
            .iter()
            .map(|&(row, said)| top(&full[row]) == said.top)
            .collect(),
    }
}

/// Says how far it is, and about how long it takes.
fn tell(clock: &Clock, done: usize, items: usize, asked: &Asked) {
    let left = clock.left(done);
    let left = left.map_or_else(String::new, |left| format!(", about {} left", short(left)));
    eprintln!(
        "eval: {} of {items}{left}; {}, {}",
        done + 1,
        asked.item.task,
        asked.item.name
    );
}
