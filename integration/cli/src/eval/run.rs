//! Items under caches: one dense reading of each text, then every cache in turn.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::DType;
use kv_eval::{
    score::{Said, Turns, divergence, say, top},
    tasks::Item,
};
use mistralrs_kv::{RequestCache, Study};

use super::{
    caches::Candidate,
    items::Asked,
    record::{Key, Question, Record, Records},
};

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
    for (index, asked) in items.iter().enumerate() {
        let key = |candidate: &Candidate| Key {
            task: asked.item.task.clone(),
            item: asked.item.name.clone(),
            question: asked.question,
            cache: candidate.name.clone(),
        };
        let full = records.get(&key(&candidates[0]));
        let hopeless = full.is_some_and(|full| !is_worth_it(full));
        let open = candidates
            .iter()
            .any(|candidate| records.get(&key(candidate)).is_none());
        if !open || hopeless {
            continue;
        }
        clock.say(index, asked);
        let prepared = prepare(study, asked).await?;
        let (tokens, most) = (prepared.tokens(), study.max_positions());
        if tokens > most {
            eprintln!("eval: left out: it has {tokens} tokens, and the model was built for {most}");
            continue;
        }
        study.read(prepared.text.clone()).await?;
        let mut full = Vec::new();
        for (cache, candidate) in candidates.iter().enumerate() {
            let key = key(candidate);
            if cache > 0 && records.get(&key).is_some() {
                continue;
            }
            let what = format!(
                "{} at {} on {} ({})",
                key.cache.policy, key.cache.budget, key.task, key.item
            );
            let (record, rows) = measure(study, cache, key, asked, &prepared, &full)
                .await
                .with_context(|| what)?;
            if cache == 0 {
                full = rows;
            }
            let hopeless = cache == 0 && !is_worth_it(&record);
            if records.get(&record.key).is_none() {
                records.add(record)?;
            }
            if hopeless {
                break;
            }
        }
    }
    Ok(())
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

/// One cache; also the logits, for others to be compared with.
async fn measure(
    study: &mut Study,
    cache: usize,
    key: Key,
    asked: &Asked,
    prepared: &Prepared,
    full: &[Vec<f32>],
) -> Result<(Record, Vec<Vec<f32>>)> {
    let gone_on = study
        .go_on_under(cache, &prepared.request, prepared.turns.read())
        .await?;
    let rows: Vec<Vec<f32>> = gone_on.logits.to_dtype(DType::F32)?.to_vec2()?;
    let full = if full.is_empty() { &rows } else { full };
    let answers: Vec<Vec<(usize, u32)>> = prepared.turns.rows().collect();
    let said: Vec<Vec<Said>> = answers
        .iter()
        .map(|answer| {
            answer
                .iter()
                .map(|&(row, token)| say(&rows[row], token))
                .collect()
        })
        .collect();
    let exact = said.iter().zip(&answers).map(|(said, answer)| {
        let pairs = said.iter().zip(answer);
        pairs.clone().all(|(said, &(_, token))| said.top == token)
    });
    let exact = exact.collect();
    let said: Vec<Said> = said.into_iter().flatten().collect();
    let scored = || answers.iter().flatten().map(|&(row, _)| row);
    let geometry = study.caches()[cache].geometry();
    let page_bytes = geometry.context("the pool is open")?.page_bytes();
    let report = gone_on.report;
    let record = Record {
        depth: asked.item.depth,
        text_tokens: prepared.text.len(),
        cached_tokens: report.cached_tokens,
        pages_held: report.pages_held,
        pages_full: report.pages_full,
        held_bytes: report.pages_held * page_bytes,
        full_bytes: report.pages_full * page_bytes,
        // A text has no right answer.
        exact: if asked.tokens.is_some() {
            Vec::new()
        } else {
            exact
        },
        nll: said.iter().map(|said| said.nll).collect(),
        divergence: scored()
            .map(|row| divergence(&full[row], &rows[row]))
            .collect(),
        agrees: scored()
            .zip(&said)
            .map(|(row, said)| top(&full[row]) == said.top)
            .collect(),
        kept: report.kept,
        key,
    };
    Ok((record, rows))
}

/// Says how far it is, and about how long it takes.
struct Clock {
    start: Instant,
    items: usize,
}

impl Clock {
    fn start(items: usize) -> Self {
        Self {
            start: Instant::now(),
            items,
        }
    }

    fn say(&self, done: usize, asked: &Asked) {
        let took = self.start.elapsed();
        let left = u32::try_from(done)
            .ok()
            .filter(|&done| done > 0)
            .map(|done| {
                let rest = u32::try_from(self.items).unwrap_or(u32::MAX) - done;
                took / done * rest
            });
        let left = left.map_or_else(String::new, |left| format!(", about {} left", short(left)));
        eprintln!(
            "eval: {} of {}{left}; {}, {}",
            done + 1,
            self.items,
            asked.item.task,
            asked.item.name
        );
    }
}

fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
