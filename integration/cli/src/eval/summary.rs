//! Many figures in one row for each task and cache.
use std::{cmp::Ordering, collections::BTreeMap};

use kv_eval::stats::{Estimate, mean, share};
use serde::Serialize;

use super::{
    caches::FULL,
    record::{CacheName, Key, Question, Record, Records},
};

/// Neighbouring tokens that are drawn together where a mean's uncertainty is estimated.
const BLOCK: usize = 32;
const SEED: u64 = 1;

/// A task under a cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) task: String,
    pub(super) question: Question,
    #[serde(flatten)]
    pub(super) cache: CacheName,
    /// Bytes of pages held, and that the full cache holds, as means over the items.
    pub(super) held_bytes: f64,
    pub(super) full_bytes: f64,
    /// The same when the text had been compressed and little had been read behind it; of tasks in which much is read behind.
    pub(super) text_held_bytes: Option<f64>,
    pub(super) text_full_bytes: Option<f64>,
    /// Answers that count: those that the full cache gives.
    pub(super) answers: usize,
    /// The share of them that are given, with 95 % confidence.
    pub(super) score: Option<Estimate>,
    /// Over the scored tokens of a text.
    pub(super) perplexity: Option<Estimate>,
    /// Divergence from the full cache in nats, over the scored tokens.
    pub(super) divergence: Option<Estimate>,
    /// The share of tokens for which the most likely one is the full cache's.
    pub(super) agreement: Option<Estimate>,
}

impl Row {
    /// Bytes held and the full cache's: of the text where both are known, otherwise at the end.
    pub(super) fn bytes(&self) -> (f64, f64) {
        let text = self.text_held_bytes.zip(self.text_full_bytes);
        text.unwrap_or((self.held_bytes, self.full_bytes))
    }

    /// Bytes held as a share of the full cache's.
    pub(super) fn held(&self) -> f64 {
        let (held, full) = self.bytes();
        held / full.max(1.0)
    }

    /// Whether it is of a text that is gone on with, not of answers.
    pub(super) const fn is_text(&self) -> bool {
        self.perplexity.is_some()
    }

    /// What counts: the share of answers given, or the perplexity.
    pub(super) const fn quality(&self) -> Option<Estimate> {
        match self.perplexity {
            None => self.score,
            perplexity => perplexity,
        }
    }

    /// The less, the better.
    pub(super) fn loss(&self) -> f64 {
        let quality = self.quality().map_or(0.0, |quality| quality.value);
        if self.is_text() { quality } else { -quality }
    }

    /// The task, and how it is asked.
    pub(super) fn group(&self) -> (&str, Question) {
        (&self.task, self.question)
    }
}

/// Where a budget stands among others: the largest first.
pub(super) fn by_size(a: &str, b: &str) -> Ordering {
    let size = |budget: &str| {
        let number: String = budget
            .chars()
            .take_while(|letter| letter.is_ascii_digit() || *letter == '.')
            .collect();
        number.parse().unwrap_or(f64::INFINITY)
    };
    size(b).total_cmp(&size(a)).then_with(|| a.cmp(b))
}

/// A row for each task, way of asking and cache.
pub(super) fn rows(records: &Records) -> Vec<Row> {
    let mut groups: BTreeMap<(String, Question, CacheName), Vec<&Record>> = BTreeMap::new();
    for record in records.all() {
        let Key {
            task,
            question,
            cache,
            ..
        } = record.key.clone();
        groups
            .entry((task, question, CacheName { draw: 0, ..cache }))
            .or_default()
            .push(record);
    }
    let rows = groups
        .into_iter()
        .filter_map(|((task, question, cache), of_group)| {
            row(records, task, question, cache, &of_group)
        });
    let mut rows: Vec<Row> = rows.collect();
    // The full cache on top; then from the largest budget to the smallest, and of each the best first.
    rows.sort_by(|a, b| {
        let place = |row: &Row| row.cache.policy != FULL;
        a.group()
            .cmp(&b.group())
            .then(place(a).cmp(&place(b)))
            .then_with(|| by_size(&a.cache.budget, &b.cache.budget))
            .then(a.loss().total_cmp(&b.loss()))
    });
    rows
}

fn row(
    records: &Records,
    task: String,
    question: Question,
    cache: CacheName,
    of_group: &[&Record],
) -> Option<Row> {
    let (mut given, mut answers) = (0, 0);
    let (mut nll, mut divergence, mut agrees) = (Vec::new(), Vec::new(), Vec::new());
    let (mut held, mut full_bytes, mut items) = (0, 0, 0_u32);
    let mut of_text = Some((0, 0));
    let is_text = of_group.iter().all(|record| record.exact.is_empty());
    for record in of_group {
        let full = records.get(&record.key.of_full())?;
        let solved = full.exact.iter().zip(&record.exact);
        let counted: Vec<bool> = solved
            .filter(|(full, _)| **full)
            .map(|(_, given)| *given)
            .collect();
        if !is_text && counted.is_empty() {
            continue;
        }
        items += 1;
        held += record.held_bytes;
        full_bytes += record.full_bytes;
        of_text = of_text
            .zip(record.text_bytes)
            .map(|(sum, bytes)| (sum.0 + bytes.0, sum.1 + bytes.1));
        answers += counted.len();
        given += counted.iter().filter(|given| **given).count();
        nll.extend_from_slice(&record.nll);
        divergence.extend_from_slice(&record.divergence);
        agrees.extend(
            record
                .agrees
                .iter()
                .map(|&agrees| f64::from(u8::from(agrees))),
        );
    }
    if items == 0 {
        return None;
    }
    let average = |sum: usize| float(sum) / f64::from(items);
    Some(Row {
        task,
        question,
        cache,
        held_bytes: average(held),
        full_bytes: average(full_bytes),
        text_held_bytes: of_text.map(|sum| average(sum.0)),
        text_full_bytes: of_text.map(|sum| average(sum.1)),
        answers,
        score: share(given, answers),
        perplexity: mean(&nll, BLOCK, SEED)
            .filter(|_| is_text)
            .map(|nll| nll.map(f64::exp)),
        divergence: mean(&divergence, BLOCK, SEED),
        agreement: mean(&agrees, BLOCK, SEED),
    })
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a cache")]
fn float(count: usize) -> f64 {
    count as f64
}

/// All rows as comma-separated values.
pub(super) fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "task,question,policy,budget,bytes_of,held_bytes,full_bytes,text_held_bytes,text_full_bytes,answers,score,score_low,score_high,\
         perplexity,perplexity_low,perplexity_high,divergence,divergence_low,divergence_high,\
         agreement,agreement_low,agreement_high\n",
    );
    for row in rows {
        let mut cells = vec![
            quoted(&row.task),
            row.question.name().to_owned(),
            row.cache.policy.clone(),
            row.cache.budget.clone(),
            row.cache.bytes_of.clone().unwrap_or_default(),
            row.held_bytes.to_string(),
            row.full_bytes.to_string(),
            number(row.text_held_bytes),
            number(row.text_full_bytes),
            row.answers.to_string(),
        ];
        for estimate in [row.score, row.perplexity, row.divergence, row.agreement] {
            let estimate = |of: fn(Estimate) -> f64| number(estimate.map(of));
            cells.extend([
                estimate(|figure| figure.value),
                estimate(|figure| figure.low),
                estimate(|figure| figure.high),
            ]);
        }
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// A cell that may be empty.
fn number(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// A cell that may have anything in it: tasks of files have the files' names.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::record, *};

    fn records() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(folder.path(), &0).expect("opens");
        for (policy, budget, item, exact) in [
            (FULL, "full", "1", true),
            (FULL, "full", "2", true),
            (FULL, "full", "3", false),
            ("h2o", "25%", "1", true),
            ("h2o", "25%", "2", false),
            ("tova", "25%", "1", true),
            ("tova", "25%", "2", true),
        ] {
            records
                .add(record(policy, budget, item, exact))
                .expect("writes");
        }
        (folder, records)
    }

    #[test]
    fn only_what_the_full_cache_solves_counts() {
        let (_folder, records) = records();
        let rows = rows(&records);
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                let score = row.score.expect("answers");
                (row.cache.policy.as_str(), row.answers, score.value)
            })
            .collect();
        assert_eq!(told, [(FULL, 2, 1.0), ("tova", 2, 1.0), ("h2o", 2, 0.5)]);
        assert!(
            rows.iter()
                .all(|row| row.held() == 0.25 && row.perplexity.is_none())
        );
    }

    #[test]
    fn budgets_stand_by_their_size() {
        let mut budgets = ["5%", "12.5%", "full", "50%", "100%"];
        budgets.sort_by(|a, b| by_size(a, b));
        assert_eq!(budgets, ["full", "100%", "50%", "12.5%", "5%"]);
    }

    #[test]
    fn values_have_every_row() {
        let (_folder, records) = records();
        let csv = csv(&rows(&records));
        for policy in [FULL, "h2o", "tova"] {
            assert!(csv.contains(policy), "{csv}");
        }
        let widths: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(widths, [22; 4], "{csv}");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
